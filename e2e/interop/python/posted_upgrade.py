"""POST with a body and `Upgrade: tcp`, as docker exec sends it, by bare sockets: `posted_upgrade.py HOST:PORT`.

The server sends the body back behind its 101, and then what it gets."""

import collections
import concurrent.futures
import socket
import sys

host, port = sys.argv[1].rsplit(":", 1)
PATIENCE = 10
LINES = [b"%d\n" % number * 100 for number in range(200)]


def upgraded(number):
    body = b'{"Detach":false,"Number":%d}' % number
    head = (f"POST /exec/1/start HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n")
    try:
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection, connection.makefile("rb") as came:
            connection.sendall(head.encode() + body)
            status = came.readline().split()[1:2]
            fields = {line.split(b":")[0].lower(): line.split(b":", 1)[1].strip() for line in iter(came.readline, b"\r\n")}
            first = came.readline()
            back = b""
            for line in LINES:
                connection.sendall(line)
                back += came.read(len(line))
    except (OSError, IndexError) as error:
        return type(error).__name__
    whole = "whole" if (first, back) == (b"POST " + body + b"\n", b"".join(LINES)) else "other bytes"
    return f"{b''.join(status).decode()} to {fields.get(b'upgrade', b'nothing').decode()}, body and {len(back)} bytes {whole}"


print("one:", upgraded(0))
with concurrent.futures.ThreadPoolExecutor(20) as pool:
    ends = collections.Counter(pool.map(upgraded, range(1, 21)))
print("20 at once:", ", ".join(f"{count} x {end}" for end, count in sorted(ends.items())))
