"""TCP as sockets give it: `raw_tcp.py serve PORT` and `raw_tcp.py call HOST:PORT`.

The first line of a client says what the server shall do; a client that says nothing for
half a second is greeted first.
"""

import concurrent.futures
import hashlib
import select
import socket
import socketserver
import struct
import sys
import time

PATIENCE = 8
PIECE = bytes(range(256)) * 256


def reset(one):
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 256
    said = {}

    # The handler closes by itself, in the requested way.
    def shutdown_request(self, request):
        pass


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        one = self.request
        if not select.select([one], [], [], 0.5)[0]:
            one.sendall(b"welcome\n")
        line = b""
        while not line.endswith(b"\n"):
            try:
                byte = one.recv(1)
            except ConnectionResetError:
                byte = b""
            if not byte:
                one.close()
                return
            line += byte
        command, *words = line.decode("latin-1").split() or [""]
        act = getattr(self, command, None)
        if act is None:
            one.sendall(b"what?\n")
            one.close()
        else:
            act(one, *words)

    def echo(self, one):
        try:
            while data := one.recv(65536):
                one.sendall(data)
        except OSError:
            pass
        one.close()

    def all(self, one):
        """Answers only when the client has ended its side."""
        sum_, count = hashlib.sha256(), 0
        while data := one.recv(65536):
            sum_.update(data)
            count += len(data)
        one.sendall(f"{count} {sum_.hexdigest()[:16]}\n".encode())
        one.close()

    def give(self, one, count):
        left = int(count)
        while left > 0:
            one.sendall(PIECE[:left])
            left -= len(PIECE)
        one.close()

    def break_(self, one, count):
        one.sendall(PIECE[: int(count)])
        time.sleep(0.3)
        reset(one)

    def half(self, one):
        """Ends its own side, then goes on to listen."""
        one.sendall(b"mine is over\n")
        one.shutdown(socket.SHUT_WR)
        self.note(one, one.getpeername())

    def note(self, one, name):
        """Remembers under a name how the client's side ended."""
        count, end = 0, "FIN"
        try:
            while data := one.recv(65536):
                count += len(data)
        except ConnectionResetError:
            end = "RST"
        Server.said[name] = f"{count} {end}\n".encode()
        one.close()

    def asked(self, one, name):
        for _ in range(60):
            if name in Server.said:
                break
            time.sleep(0.05)
        one.sendall(Server.said.pop(name, b"nothing yet\n"))
        one.close()


def call(address):
    host, port = address.rsplit(":", 1)

    def connect():
        return socket.create_connection((host, int(port)), timeout=PATIENCE)

    def read(one, until=None):
        got = b""
        try:
            while until is None or len(got) < until:
                data = one.recv(65536)
                if not data:
                    return got, "FIN"
                got += data
        except TimeoutError:
            return got, f"open after {PATIENCE} s"
        except ConnectionResetError:
            return got, "RST"
        return got, "open"

    def show(name, result):
        got, end = result
        text = got.decode("latin-1") if len(got) < 200 else f"{len(got)} bytes {hashlib.sha256(got).hexdigest()[:16]}"
        print(f"{name}: {text!r} {end}", flush=True)

    def ask(name, line, half_close=False, payload=b""):
        with connect() as one:
            one.sendall(line + b"\n" + payload)
            if half_close:
                one.shutdown(socket.SHUT_WR)
            show(name, read(one))

    with connect() as one:
        show("server first", read(one, 8))
        one.sendall(b"echo\nabc")
        show("server first, then echo", read(one, 3))
    with connect() as one:
        time.sleep(0.2)
        one.sendall(b"echo\nabc")
        show("silent for a while", read(one, 3))
        time.sleep(2)
        one.sendall(b"def")
        show("silent for 2 s in between", read(one, 3))
    with connect() as one:
        for byte in b"echo\nbyte by byte":
            one.sendall(bytes([byte]))
            time.sleep(0.01)
        show("byte by byte", read(one, 12))
    ask("echo with half-close", b"echo", True, b"xyz")
    ask("1 MB, answered after half-close", b"all", True, PIECE * 16)
    ask("nothing, answered after half-close", b"all", True)
    ask("download of 20 MB", b"give 20000000")
    ask("download of nothing", b"give 0")
    ask("server resets after 1000 bytes", b"break_ 1000")
    ask("server resets at once", b"break_ 0")
    for kind in ("FIN", "RST", "RST while reading"):
        with connect() as one:
            one.sendall(b"note %s\n" % kind.replace(" ", "-").encode() + b"12345")
            time.sleep(0.3)
            if kind == "FIN":
                one.close()
            else:
                reset(one)
        ask(f"server sees {kind}", b"asked %s" % kind.replace(" ", "-").encode())
    with connect() as one:
        one.sendall(b"half\n")
        show("server ends its side first", read(one))
        one.sendall(b"still")
        time.sleep(0.1)
    with connect() as one:
        one.sendall(b"\x00\x01\x02\xff" * 10 + b"\n")
        one.shutdown(socket.SHUT_WR)
        show("bytes that are no command", read(one))
    with connect() as one:
        one.shutdown(socket.SHUT_WR)
        show("half-close without a byte", read(one))

    def both(number):
        with connect() as one:
            data = bytes([number]) * 200_000
            one.sendall(b"echo\n")
            with concurrent.futures.ThreadPoolExecutor(1) as writer:
                sent = writer.submit(lambda: (one.sendall(data), one.shutdown(socket.SHUT_WR)))
                got, end = read(one)
                sent.result()
            return "whole" if (got, end) == (data, "FIN") else f"{len(got)} {end}"

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        ends = list(pool.map(both, range(50)))
    print(f"50 at once, both ways: {sorted(set(ends))}")


if sys.argv[1] == "serve":
    Server(("0.0.0.0", int(sys.argv[2])), Handler).serve_forever()
else:
    call(sys.argv[2])
