"""Servers whose manners the rows need: serve.py MANNER PORT.

http      keeps connections, answers with its name, and serves two seconds more when it is ended
either    TLS and HTTP on one port, distinguished by the first byte, as GitOps servers do
raw       answers the first bytes of a connection with `N`, as PostgreSQL without TLS does
truncate  head, 3 of 1 000 bytes, reset
slow      answers after SLOW seconds, and prints when it saw the end of a connection
show      answers with the path as it came
busy      answers 429, as by a limit of its own
stream    a chunk every half second for STREAM seconds
"""

import http.server
import json
import os
import select
import signal
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time

CERTIFICATE = os.environ.get("CERTIFICATE", "/field/tls.crt")
KEY = os.environ.get("KEY", "/field/tls.key")
SLOW = float(os.environ.get("SLOW", "15"))
STREAM = float(os.environ.get("STREAM", "24"))
# A connection of a probe, or one that was forgotten.
IDLE = 30.0
GOODBYE = 2.0


class Http(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one packet, or the second one waits for the first one's receipt.
    wbufsize = -1
    timeout = IDLE

    def do_GET(self):
        self.answer(200, socket.gethostname())

    def answer(self, status, text, **headers):
        body = text.encode("latin-1")
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Peers that leave are what is tried here."""


class Either(Http):
    def setup(self):
        self.request.settimeout(IDLE)
        if self.request.recv(1, socket.MSG_PEEK) == b"\x16":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE, KEY)
            self.request = context.wrap_socket(self.request, server_side=True)
        super().setup()


class Show(Http):
    def parse_request(self):
        # The library joins slashes at the beginning of a path.
        sent = self.raw_requestline.decode("latin-1").split()
        whole = super().parse_request()
        if whole and len(sent) == 3:
            self.path = sent[1]
        return whole

    def do_GET(self):
        self.answer(200, self.path)


class Busy(Http):
    def do_GET(self):
        self.answer(429, "busy", retry_after="1")


class Stream(Http):
    def do_GET(self):
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        end = time.monotonic() + STREAM
        while time.monotonic() < end:
            self.wfile.write(b"5\r\nchunk\r\n")
            self.wfile.flush()
            time.sleep(0.5)
        self.wfile.write(b"0\r\n\r\n")


class Raw(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.settimeout(IDLE)
        while self.request.recv(4096):
            self.request.sendall(b"N")


class Truncate(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.settimeout(IDLE)
        if not read_head(self.request):
            return
        self.request.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nabc")
        # What is on its way is not to be lost with the reset.
        time.sleep(0.05)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()


class Slow(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.settimeout(IDLE)
        if not read_head(self.request):
            return
        started, ended = time.monotonic(), None
        while (left := started + SLOW - time.monotonic()) > 0:
            if ended is not None:
                time.sleep(left)
                break
            if select.select([self.request], [], [], left)[0] and not received(self.request):
                ended = round(time.monotonic() - started, 2)
        print(json.dumps({"end": ended}), flush=True)
        self.request.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")


def read_head(connection):
    head = b""
    while b"\r\n\r\n" not in head:
        if not (more := received(connection)):
            return b""
        head += more
    return head


def received(connection):
    """Nothing when the connection has ended, in whichever way."""
    try:
        return connection.recv(4096)
    except OSError:
        return b""


def serve(manner, port):
    """A server that runs, in a thread; port 0 for any."""
    server = Server(("", port), MANNERS[manner])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


MANNERS = {"http": Http, "either": Either, "raw": Raw, "truncate": Truncate, "slow": Slow, "show": Show, "busy": Busy,
           "stream": Stream}


if __name__ == "__main__":
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    serve(sys.argv[1], int(sys.argv[2]))
    ended.wait()
    time.sleep(GOODBYE if sys.argv[1] == "http" else 0)
