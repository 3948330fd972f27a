"""One flood for some seconds: `flood.py KIND HOST:PORT COUNT SECONDS`. Kinds:

silent  connections that say nothing          head    heads that come byte by byte
body    bodies that come byte by byte         reader  answers of 5 MB that nobody reads
bytes   one byte per connection               storm   connections that are reset at once
http    as many GET as go                     tls     TLS handshakes that never end
Ends with what it held at most.
"""

import asyncio
import socket
import struct
import sys
import time

kind, address, count, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
host, port = address.rsplit(":", 1)
end = time.monotonic() + seconds
held = most = refused = sent = 0
FIRST = {
    "silent": b"", "bytes": b"G", "head": b"GET /slow HTTP/1.1\r\nHost: app\r\nX: ",
    "body": b"POST /slow HTTP/1.1\r\nHost: app\r\nContent-Length: 1000000\r\n\r\n",
    "reader": b"GET /large HTTP/1.1\r\nHost: app\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


async def one():
    global held, most, refused, sent
    while time.monotonic() < end:
        try:
            raw = socket.socket()
            raw.setblocking(False)
            if kind == "reader":
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
    await loop.sock_sendall(raw, FIRST[kind])
    sent += 1
    while time.monotonic() < end:
        await asyncio.sleep(1)
        if kind in ("head", "body"):
            await loop.sock_sendall(raw, b"a")
        elif kind != "reader":
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
