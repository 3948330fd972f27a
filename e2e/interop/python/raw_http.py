"""HTTP/1 as bytes on a socket, where libraries would tidy up: `raw_http.py HOST:PORT [pages,...]`.

Prints what came back as it came, but for the date, and how the connection ended. `pages`
says what the server offers beyond /hello and /bytes/N: echo, abort (and /trailers), drip; absolute, where it
takes a whole address as target; half, where a client may end its side and still be answered; lax, where broken bodies are taken.
"""

import concurrent.futures
import hashlib
import re
import socket
import struct
import sys
import time

host, port = sys.argv[1].rsplit(":", 1)
pages = set(sys.argv[2].split(",")) if len(sys.argv) > 2 else set()
PATIENCE = 8
# What is larger is shown by its hash.
SHOWN = 1500
DATE = re.compile(rb"(?im)^(date|last-modified|etag|expires):[^\r\n]*")


class Connection:
    def __init__(self):
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self.got, self.ended = b"", None

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            # How it ended is for `read` to say.
            pass

    def read(self):
        if self.ended:
            return False
        try:
            piece = self.socket.recv(65536)
        except TimeoutError:
            self.ended = f"open after {PATIENCE} s"
        except ConnectionResetError:
            self.ended = "RST"
        else:
            self.got += piece
            if not piece:
                self.ended = "FIN"
        return not self.ended

    def rest(self):
        while self.read():
            pass
        return self

    def answers(self, count):
        """Until so many answers with a length or chunks have come."""
        while len(split(self.got)) < count and self.read():
            pass
        return self

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def split(got):
    """Whole answers, by Content-Length, chunks, or a status without a body."""
    whole = []
    while b"\r\n\r\n" in got:
        head, rest = got.split(b"\r\n\r\n", 1)
        status = head.split(b" ", 2)[1]
        length = re.search(rb"(?im)^content-length: *(\d+)", head)
        if status.startswith(b"1") or status in (b"204", b"304"):
            size = 0
        elif length:
            size = int(length[1])
        elif re.search(rb"(?im)^transfer-encoding: *chunked", head):
            end = re.search(rb"(?:^|\r\n)0\r\n(?:[^\r\n]+\r\n)*\r\n", rest)
            if not end:
                break
            size = end.end()
        else:
            break
        if len(rest) < size:
            break
        if not status.startswith(b"1"):
            whole.append(head)
        got = rest[size:]
    return whole


def shown(connection):
    got = DATE.sub(lambda match: match[1] + b": *", connection.got)
    head, _, body = got.partition(b"\r\n\r\n")
    # The sizes of chunks are each hop's own business (RFC 9112, 7.1): the content is compared.
    if re.search(rb"(?im)^transfer-encoding: *chunked", head) and connection.got.count(b"HTTP/1.") == 1:
        body = unchunked(body)
    if len(body) > SHOWN:
        body = b"[%d bytes, %s]" % (len(body), hashlib.sha256(body).hexdigest()[:16].encode())
    # The order of names that differ has no meaning (RFC 9110, 5.3), but how each is written is shown.
    first, *lines = head.split(b"\r\n")
    text = b"\n".join([first, *sorted(lines, key=bytes.lower)]) + b"\n\n" + body
    return text.decode("latin-1").replace("\r", "\\r") + f"\n[{connection.ended or 'left open'}]"


def unchunked(body):
    content = b""
    while True:
        size, _, rest = body.partition(b"\r\n")
        try:
            count = int(size.split(b";")[0], 16)
        except ValueError:
            return content + b"[cut short]"
        if count == 0:
            return content + b"[chunks end]" + rest
        if len(rest) < count + 2:
            return content + rest + b"[cut short]"
        content, body = content + rest[:count], rest[count + 2:]


def show(name, connection):
    print(f"== {name}\n{shown(connection)}")
    connection.socket.close()


def ask(method, path, *headers, body=b"", version="1.1", own_host=f"{host}:{port}", close=True):
    lines = [f"{method} {path} HTTP/{version}"]
    if own_host is not None:
        lines.append(f"Host: {own_host}")
    if close:
        lines.append("Connection: close")
    return ("\r\n".join([*lines, *headers]) + "\r\n\r\n").encode() + body


def once(name, *pieces, pause=0.0, half_close=False):
    connection = Connection()
    for piece in pieces:
        connection.send(piece)
        time.sleep(pause)
    if half_close:
        connection.socket.shutdown(socket.SHUT_WR)
    show(name, connection.rest())


def status(name, request):
    connection = Connection()
    connection.send(request)
    connection.rest()
    print(f"== {name}\n{connection.got[9:12].decode()}")
    connection.socket.close()


def main():
    once("GET", ask("GET", "/hello"))
    once("GET of nothing", ask("GET", "/bytes/0"))
    once("GET of 5 MB", ask("GET", "/bytes/5000000"))
    once("HEAD", ask("HEAD", "/bytes/1000"))
    once("page that is not there", ask("GET", "/none"))
    once("names in small letters", b"GET /hello HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n" % host.encode())
    once("HTTP/1.0", ask("GET", "/hello", version="1.0", close=False))
    once("HTTP/1.0 without Host", ask("GET", "/hello", version="1.0", own_host=None, close=False))
    once("HTTP/1.0, GET of 100 KB", ask("GET", "/bytes/100000", version="1.0", close=False))
    # Of servers that refuse it, each has words of its own.
    status("Host that is empty", ask("GET", "/hello", own_host=""))
    if "absolute" in pages:
        once("the whole address as target", ask("GET", f"http://{host}:{port}/hello"))
    once("a query and escapes", ask("GET", "/hello?a=%41&b=%2F;c"))
    once("a head in pieces", *[bytes([byte]) for byte in ask("GET", "/hello")], pause=0.002)
    if "half" in pages:
        once("half-close after the request", ask("GET", "/hello"), half_close=True)
        once("half-close, GET of 1 MB", ask("GET", "/bytes/1000000"), half_close=True)
    once("Range", ask("GET", "/bytes/1000", "Range: bytes=0-9"))
    once("Upgrade to an unknown protocol", ask("GET", "/hello", "Upgrade: foo/2", "Connection: Upgrade, close", close=False))
    once("many headers", ask("GET", "/hello", *[f"X-Many-{n}: {n}" for n in range(60)]))
    once("a header of 6 KB", ask("GET", "/hello", "X-Long: " + "v" * 6000))
    once("POST without a body", ask("POST", "/hello", "Content-Length: 0"))

    connection = Connection()
    for at in range(3):
        connection.send(ask("GET", "/hello", close=False))
        connection.answers(at + 1)
    connection.send(ask("GET", "/hello"))
    show("four on one connection, one after the other", connection.rest())

    connection = Connection()
    connection.send(ask("GET", "/hello", close=False) * 4 + ask("GET", "/bytes/10"))
    show("five in one write", connection.rest())

    connection = Connection()
    connection.send(ask("GET", "/hello", version="1.0", close=False).replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"))
    connection.answers(1)
    show("HTTP/1.0 that stays", connection)

    if "echo" in pages:
        echoes()
    if "abort" in pages:
        once("a server that breaks off in chunks", ask("GET", "/abort"))
        once("trailers that are asked for", ask("GET", "/trailers", "TE: trailers", "Connection: TE, close", close=False))
    if "drip" in pages:
        drip()

    for at in range(10):
        connection = Connection()
        connection.send(ask("GET", "/bytes/5000000")[: 20 + at])
        connection.reset()
        connection = Connection()
        connection.send(ask("GET", "/bytes/5000000"))
        connection.socket.recv(1000)
        connection.reset()
    once("GET after 20 that broke off", ask("GET", "/hello"))
    together()


def echoes():
    once("POST with a length", ask("POST", "/echo", "Content-Length: 5", body=b"12345"))
    once("POST in chunks", ask("POST", "/echo", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"))
    once("POST in chunks with a trailer", ask("POST", "/echo", "Transfer-Encoding: chunked", "Trailer: X-T", body=b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"))
    once("GET with a body", ask("GET", "/echo", "Content-Length: 5", body=b"12345"))
    once("a body in pieces", ask("POST", "/echo", "Content-Length: 40"), *[b"%04d" % n for n in range(10)], pause=0.02)
    if "half" in pages:
        once("POST of 1 MB, half-close", ask("POST", "/echo", "Content-Length: 1000000", body=b"z" * 1000000), half_close=True)
    once("POST with an upgrade to an unknown protocol", ask("POST", "/echo", "Upgrade: foo/2", "Content-Length: 3", body=b"abc"))
    connection = Connection()
    connection.send(ask("POST", "/echo", "Expect: 100-continue", "Content-Length: 5"))
    # Some servers answer before they read, and so never send 100: any response ends the wait.
    while b"\r\n\r\n" not in connection.got and connection.read():
        pass
    connection.send(b"12345")
    connection.rest()
    connection.got = re.sub(rb"^HTTP/1.1 100 [^\n]*\n(?:[^\r\n]+\r\n)*\r\n", b"", connection.got)
    show("Expect", connection)
    if "lax" in pages:
        return
    broken("a chunk that is none", ask("POST", "/echo", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\nzz\r\n"))
    broken("a body cut short by half-close", ask("POST", "/echo", "Content-Length: 100", body=b"half"))
    broken("chunks cut short by half-close", ask("POST", "/echo", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n"))


def broken(name, request):
    """A malformed or truncated request must be refused or broken off. Whether server or proxy
    does so first, and with which message, is a race; no client may rely on it."""
    connection = Connection()
    connection.send(request)
    connection.socket.shutdown(socket.SHUT_WR)
    connection.rest()
    whole = split(connection.got)
    refused = not whole or whole[0].split(b" ")[1].startswith(b"4")
    print(f"== {name}\n" + ("refused or broken off" if refused else shown(connection)))
    connection.socket.close()


def drip():
    """Pieces come as they are made, not all at the end."""
    connection = Connection()
    connection.send(ask("GET", "/drip"))
    arrived = []
    while True:
        before = len(connection.got)
        if not connection.read():
            break
        arrived.append(len(connection.got) - before)
    print(f"== pieces as they are made: {'one by one' if len(arrived) >= 4 else arrived}")
    show("drip", connection)


def together():
    def one(number):
        wrong = []
        for at in range(5):
            connection = Connection()
            size = number * 1000 + at
            connection.send(ask("GET", f"/bytes/{100000 if number % 2 else 1000}"))
            connection.rest()
            if not connection.got.startswith(b"HTTP/1.1 200") or connection.ended != "FIN" or not complete(connection.got):
                wrong.append(f"{size}: {connection.got[:40]} {len(connection.got)} {connection.ended}")
            connection.socket.close()
        return wrong

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        wrong = [said for said in pool.map(one, range(50)) if said]
    print(f"== 50 at once, 5 times each: {wrong or 'all whole'}")


def complete(got):
    head, _, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    return len(body) == int(length[1]) if length else body.endswith(b"0\r\n\r\n")


main()
