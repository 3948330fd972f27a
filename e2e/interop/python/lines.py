"""Text protocols by hand: `lines.py redis|memcached|nats HOST:PORT`."""

import concurrent.futures
import re
import socket
import sys
import time

AT_ONCE, ROUNDS = 50, 20
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


def together(exchange, before=b""):
    """`exchange` says for a number what is said, and a pattern of the whole answer with its
    end: for 50 connections at once, a few times on each, each with a number of its own."""

    def rounds(number):
        says, whole, end = exchange(number)
        with socket.create_connection((host, int(port)), timeout=20) as one:
            one.sendall(before)
            for _ in range(ROUNDS):
                one.sendall(says)
                got = b""
                while not got.endswith(end) and (data := one.recv(65536)):
                    # NATS pings its client at a time of its own.
                    got = (got + data).replace(b"PING\r\n", b"")
                if not re.fullmatch(whole, got):
                    return False
        return True

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        print(f"{sum(pool.map(rounds, range(AT_ONCE)))} of {AT_ONCE} at once had their own answers")


def of_memcached(number):
    key, value = b"own-%d" % number, b"%03d" % number * 1000
    return (b"set %b 0 0 3000\r\n%b\r\nget %b\r\n" % (key, value, key),
            b"STORED\r\nVALUE %b 0 3000\r\n%b\r\nEND\r\n" % (key, value), b"END\r\n")


def of_nats(number):
    # Subscribed to anew in each round, so that there is one answer to each.
    name, value = b"own-%d" % number, b"%03d" % number * 1000
    return (b"SUB %b 1\r\nPUB %b 3000\r\n%b\r\nUNSUB 1\r\nPING\r\n" % (name, name, value),
            rb"(?:INFO [^\r]*\r\n)?MSG %b 1 3000\r\n%b\r\nPONG\r\n" % (name, value), b"PONG\r\n")


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
    together(of_memcached)
elif kind == "nats":
    talk("server first", b"", b"PING\r\n")
    talk("connect and ping", b'CONNECT {"verbose":true}\r\nPING\r\n')
    talk("to oneself", b'CONNECT {"verbose":false}\r\nSUB s 1\r\nPUB s 5\r\nhello\r\nPING\r\n')
    talk("many", b'CONNECT {"verbose":false}\r\nSUB s 1\r\n' + b"PUB s 5\r\nhello\r\n" * 1000 + b"PING\r\n", pause=0.5)
    talk("no command", b"HELLO\r\n", half_close=False)
    together(of_nats, b'CONNECT {"verbose":false}\r\n')
