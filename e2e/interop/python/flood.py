"""One flood for some seconds: `flood.py KIND HOST:PORT COUNT SECONDS`. Kinds:

silent  connections that say nothing          head    heads that come byte by byte
body    bodies that come byte by byte         reader  answers of 5 MB that nobody reads
bytes   one byte per connection               storm   connections that are reset at once
http    as many GET as go                     tls     TLS handshakes that never end
heads   60 KB of a head that never ends       long    60 KB of a head, whole, and no answer read
over HTTP/2, a hundred streams on each connection:
down    answers of 5 MB that nobody reads, with windows as large as they may be
drip    the same with windows of one byte     up      bodies of 16 KB that nobody reads
Ends with what it held at most.
"""

import asyncio
import socket
import struct
import sys
import time

import hpack

kind, address, count, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
host, port = address.rsplit(":", 1)
end = time.monotonic() + seconds
held = most = refused = sent = 0
FIRST = {
    "silent": b"", "bytes": b"G", "head": b"GET /slow HTTP/1.1\r\nHost: app\r\nX: ",
    "body": b"POST /slow HTTP/1.1\r\nHost: app\r\nContent-Length: 1000000\r\n\r\n",
    "reader": b"GET /large HTTP/1.1\r\nHost: app\r\n\r\n",
    "heads": b"GET /slow HTTP/1.1\r\nHost: app\r\nX: " + b"v" * 60_000,
    "long": b"GET /slow HTTP/1.1\r\nHost: app\r\nX: " + b"v" * 60_000 + b"\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}
STREAMS = range(1, 200, 2)


def frame(kind, flags, stream, content):
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def asks(method, path, end):
    """A hundred requests on one connection."""
    encoder = hpack.Encoder()
    head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "app")]
    return b"".join(frame(1, 4 | end, stream, encoder.encode(head)) for stream in STREAMS)


def begin(window):
    grown = frame(8, 0, 0, struct.pack(">I", 2**31 - 65536)) if window > 65535 else b""
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack(">HI", 4, window)) + grown


# What goes first, and what goes once the server has said how much it takes.
HTTP2 = {
    "down": (begin(2**31 - 1), asks("GET", "/large", 1)),
    "drip": (begin(1), asks("GET", "/large", 1)),
    "up": (begin(65535), asks("POST", "/stuck", 0) + b"".join(frame(0, 0, stream, b"z" * 16_000) for stream in STREAMS)),
}


async def one():
    global held, most, refused, sent
    while time.monotonic() < end:
        try:
            raw = socket.socket()
            raw.setblocking(False)
            if kind in ("reader", "long", *HTTP2):
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
            await hold(raw)
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
    first, then = HTTP2[kind] if kind in HTTP2 else (FIRST[kind], b"")
    await loop.sock_sendall(raw, first)
    sent += 1
    if then:
        await asyncio.sleep(0.2)
        # What nobody takes waits; so does this.
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
    tasks = []
    for at in range(count):
        tasks.append(asyncio.create_task(one()))
        if at % 100 == 99:
            await asyncio.sleep(0.05)
    await asyncio.wait(tasks, timeout=seconds + 10)
    print(f"{most} held at most, {sent} sent, {refused} refused")


asyncio.run(main())
