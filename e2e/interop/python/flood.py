"""One flood for some seconds: `flood.py KIND HOST:PORT COUNT SECONDS`. Kinds:

silent  connections that send nothing         head    heads that come byte by byte
body    bodies that come byte by byte         reader  responses of 5 MB that stay unread
bytes   one byte per connection               storm   connections that are reset at once
http    as many GET as go                     tls     TLS handshakes that never end
heads   60 KB of a head that never ends       long    60 KB of a head, whole, and no answer read
partial heads that stay unfinished
over TLS where the port speaks it, and HTTP/1.1:
slow    GETs without an end, whose answers are read a byte a second
large   heads of 1 MB, again and again        review  AdmissionReviews of 3 MB, again and again
over HTTP/2, a hundred streams on each connection:
down    responses of 5 MB that stay unread, with windows as large as they may be
drip    the same with windows of one byte     up      bodies of 16 KB that stay unread
Ends with what it held at most.
"""

import asyncio
import json
import socket
import ssl
import struct
import sys
import time

import hpack

from frames import PREFACE, frame

kind, address, count, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
host, port = address.rsplit(":", 1)
end = time.monotonic() + seconds
held = most = refused = sent = 0
FIRST = {
    "silent": b"", "bytes": b"G", "partial": b"GET /metrics HTTP/1.1\r\nHost: a", "head": b"GET /slow HTTP/1.1\r\nHost: app\r\nX: ",
    "body": b"POST /slow HTTP/1.1\r\nHost: app\r\nContent-Length: 1000000\r\n\r\n",
    "reader": b"GET /large HTTP/1.1\r\nHost: app\r\n\r\n",
    "heads": b"GET /slow HTTP/1.1\r\nHost: app\r\nX: " + b"v" * 60_000,
    "long": b"GET /slow HTTP/1.1\r\nHost: app\r\nX: " + b"v" * 60_000 + b"\r\n\r\n",
    "stuck": b"POST /stuck HTTP/1.1\r\nHost: app\r\nContent-Length: 100000000\r\n\r\n",
    "crash": b"POST /stuck HTTP/1.1\r\nHost: app\r\nContent-Length: 100000000\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}
STREAMS = range(1, 200, 2)


def asks(method, path, end):
    """A hundred requests on one connection."""
    encoder = hpack.Encoder()
    head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "app")]
    return b"".join(frame(1, 4 | end, stream, encoder.encode(head)) for stream in STREAMS)


def begin(window):
    grown = frame(8, 0, 0, struct.pack(">I", 2**31 - 65536)) if window > 65535 else b""
    return PREFACE + frame(4, 0, 0, struct.pack(">HI", 4, window)) + grown


# What goes first, and what goes once the server has said how much it takes.
HTTP2 = {
    "down": (begin(2**31 - 1), asks("GET", "/large", 1)),
    "drip": (begin(1), asks("GET", "/large", 1)),
    "up": (begin(65535), asks("POST", "/stuck", 0) + b"".join(frame(0, 0, stream, b"z" * 16_000) for stream in STREAMS)),
}


def review():
    """A pod with so many variables that its review is nearly as large as one may be."""
    variables = [{"name": f"NAME_{n}", "value": "v" * 60} for n in range(30_500)]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "large", "namespace": "default"},
           "spec": {"containers": [{"name": "app", "image": "none", "env": variables}]}}
    asked = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
             "request": {"uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
                         "namespace": "default", "operation": "CREATE", "userInfo": {"username": "flood"}, "object": pod}}
    body = json.dumps(asked).encode()
    return b"POST /mutate HTTP/1.1\r\nHost: app\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


# What goes over TLS where there is TLS.
WITHIN_TLS = {
    "slow": lambda: b"GET /metrics HTTP/1.1\r\nHost: app\r\n\r\n" * 100,
    "large": lambda: b"GET /metrics HTTP/1.1\r\nHost: app\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 4000) for n in range(250)) + b"\r\n",
    "review": review,
}
whole = WITHIN_TLS[kind]() if kind in WITHIN_TLS else b""
# Seconds between two of those from one connection: making them costs what the others run on.
ROUND = 1
# Seconds after which an upload crashes.
MOMENT = 1
# Seconds after its end that a flood is waited for: later connections are not counted.
AFTER = 2
# Set once it is known that the port speaks TLS.
tls = None


async def find_tls():
    global tls, end
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port, ssl=anybody), 3)
        writer.close()
        tls = anybody
    except (OSError, TimeoutError):
        pass
    # To ask may have taken a while.
    end = time.monotonic() + seconds


async def hold_within_tls(raw):
    global sent
    # Little of an answer is taken off the socket unasked.
    reader, writer = await asyncio.wait_for(
        asyncio.open_connection(sock=raw, ssl=tls, server_hostname="app" if tls else None, limit=1024), 10)
    writer.transport.set_write_buffer_limits(high=65536)
    try:
        while time.monotonic() < end:
            writer.write(whole)
            sent += 1
            if kind == "slow":
                # Unread bytes wait; so does this.
                taken = asyncio.ensure_future(writer.drain())
                while not taken.done() and time.monotonic() < end:
                    if not await asyncio.wait_for(reader.read(1), max(end - time.monotonic(), 0.1)):
                        return
                    await asyncio.sleep(1)
                taken.cancel()
            else:
                await asyncio.wait_for(writer.drain(), 10)
                if not await asyncio.wait_for(reader.read(4096), 10):
                    return
                await asyncio.sleep(ROUND)
    except OSError:
        # A server that refuses so much may reset the connection; the next one has time.
        await asyncio.sleep(ROUND)
    finally:
        writer.transport.abort()


async def one():
    global held, most, refused, sent
    while time.monotonic() < end:
        try:
            raw = socket.socket()
            raw.setblocking(False)
            if kind in ("reader", "long", "slow", *HTTP2):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(raw, (host, int(port))), 5)
        except (OSError, TimeoutError):
            refused += 1
            raw.close()
            await asyncio.sleep(0.2)
            continue
        held += 1
        most = max(most, held)
        try:
            await (hold_within_tls(raw) if whole else hold(raw))
        except (OSError, TimeoutError):
            pass
        held -= 1
        raw.close()


async def hold(raw):
    global sent
    loop = asyncio.get_running_loop()
    if kind == "storm":
        await loop.sock_sendall(raw, b"GET / HTTP/1.1\r\n")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sent += 1
        return
    if kind == "http":
        while time.monotonic() < end:
            await loop.sock_sendall(raw, b"GET /flood HTTP/1.1\r\nHost: app\r\n\r\n")
            if not await asyncio.wait_for(loop.sock_recv(raw, 4096), 5):
                return
            sent += 1
        return
    if kind in ("stuck", "crash"):
        await loop.sock_sendall(raw, FIRST[kind])
        sent += 1
        until = end if kind == "stuck" else min(end, time.monotonic() + MOMENT)
        try:
            # As long as the peer reads it.
            while time.monotonic() < until:
                await asyncio.wait_for(loop.sock_sendall(raw, b"z" * 65536), until - time.monotonic())
        except TimeoutError:
            pass
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return
    first, then = HTTP2[kind] if kind in HTTP2 else (FIRST[kind], b"")
    await loop.sock_sendall(raw, first)
    sent += 1
    if then:
        await asyncio.sleep(0.2)
        # Unread bytes wait; so does this.
        await asyncio.wait_for(loop.sock_sendall(raw, then), max(end - time.monotonic(), 0.1))
    while time.monotonic() < end:
        await asyncio.sleep(1)
        if kind in ("head", "body"):
            await loop.sock_sendall(raw, b"a")
        elif kind not in ("reader", "long", *HTTP2):
            try:
                if not raw.recv(1):
                    return
            except BlockingIOError:
                pass


async def main():
    if whole:
        await find_tls()
    tasks = []
    for at in range(count):
        tasks.append(asyncio.create_task(one()))
        if at % 100 == 99:
            await asyncio.sleep(0.05)
    await asyncio.wait(tasks, timeout=max(end - time.monotonic(), 0) + AFTER)
    print(f"{most} held at most, {sent} sent{', over TLS' if tls else ''}, {refused} refused")


asyncio.run(main())
