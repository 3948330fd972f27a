"""Text protocols by hand: `lines.py redis|memcached|nats HOST:PORT`."""

import re
import socket
import sys
import time

kind, address = sys.argv[1:]
host, port = address.rsplit(":", 1)


def talk(name, *pieces, pause=0.15, half_close=True):
    with socket.create_connection((host, int(port)), timeout=6) as one:
        for piece in pieces:
            one.sendall(piece)
            time.sleep(pause)
        if half_close:
            one.shutdown(socket.SHUT_WR)
        got, end = b"", "FIN"
        try:
            while data := one.recv(65536):
                got += data
        except TimeoutError:
            end = "open"
        except ConnectionResetError:
            end = "RST"
    text = got.decode("latin-1")
    if kind == "nats":
        # The server's own name and the client's number are of this run.
        text = re.sub(r"INFO \{.*?\}\s*\r\n", "INFO {}\r\n", text)
    shown = text if len(text) < 400 else f"{len(text)} bytes, {text[:60]!r}"
    print(f"{name}: {shown!r} {end}")


if kind == "redis":
    talk("inline", b"PING\r\n")
    talk("inline in small letters", b"get key\r\n", b"set  key  1\n", b"get key\r\n")
    talk("inline, letter by letter", *[bytes([one]) for one in b"PING\r\n"], pause=0.01)
    talk("a line ending first", b"\r\nPING\r\n")
    talk("pipelined", b"*1\r\n$4\r\nPING\r\n" * 1000)
    talk("QUIT", b"PING\r\nQUIT\r\n", half_close=False)
    talk("something that looks like HTTP", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", half_close=False)
elif kind == "memcached":
    talk("get", b"get k\r\n")
    talk("set and get", b"set k 0 0 5\r\nhello\r\n", b"get k\r\n")
    talk("get, letter by letter", *[bytes([one]) for one in b"get k\r\n"], pause=0.01)
    talk("pipelined", b"get k\r\n" * 1000)
    talk("large", b"set l 0 0 500000\r\n" + b"x" * 500000 + b"\r\n", b"get l\r\n")
    talk("quit", b"version\r\nquit\r\n", half_close=False)
    talk("no command", b"\x00\x01\r\n")
    talk("delete", b"delete k\r\n")
elif kind == "nats":
    talk("server first", b"", b"PING\r\n")
    talk("connect and ping", b'CONNECT {"verbose":true}\r\nPING\r\n')
    talk("to oneself", b'CONNECT {"verbose":false}\r\nSUB s 1\r\nPUB s 5\r\nhello\r\nPING\r\n')
    talk("many", b'CONNECT {"verbose":false}\r\nSUB s 1\r\n' + b"PUB s 5\r\nhello\r\n" * 1000 + b"PING\r\n", pause=0.5)
    talk("no command", b"HELLO\r\n", half_close=False)
