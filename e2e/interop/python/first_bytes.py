"""Sends every class of first bytes to each address: `first_bytes.py WAY HOST:PORT...`.

Each class carries its name in a path that no rule admits, and in an identity that it
does not have. What of that an application sees is for its log to tell. Prints a JSON
line per class and address: what was answered, in short.
"""

import concurrent.futures
import json
import socket
import sys
import time

PATIENCE = 2.5
# Tries at once, which wait nearly all the time.
TOGETHER = 32
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def head(mark, first="GET {path} HTTP/1.1", *more, end="\r\n"):
    path, forged = f"/private-{mark}.", f"spiffe://forged/{mark}."
    lines = [first.format(path=path), "Host: app", f"weft-client-id: {forged}", *more]
    return (end.join(lines) + end + end).encode("latin-1")


def http2(mark):
    """Frames by hand: literal fields without Huffman, so that they can be found again."""
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "app"), (":path", f"/private-{mark}."),
              ("weft-client-id", f"spiffe://forged/{mark}.")]
    block = b"".join(b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields)
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    headers = len(block).to_bytes(3, "big") + b"\x01\x05" + (1).to_bytes(4, "big") + block
    return PREFACE + settings + headers


def upgrade(token, also=""):
    def pieces(mark):
        first = f"GET /public HTTP/1.1\r\nHost: app\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {token}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n{also}\r\n"
        return [first.encode("latin-1"), 0.5, http2(mark)]
    return pieces


def line(first, *more, end="\r\n"):
    return lambda mark: [head(mark, first, *more, end=end)]


def before(prefix, pause=0.0):
    return lambda mark: [prefix, pause, head(mark)]


def later(head_before, *more):
    return lambda mark: [head_before, *more, head(mark)]


CLASSES = {
    "get": line("GET {path} HTTP/1.1"),
    "silence 1.3 s": lambda mark: [1.3, head(mark)],
    "silence 3 s": lambda mark: [3.0, head(mark)],
    "letter by letter": lambda mark: [piece for byte in head(mark)[:40] for piece in (bytes([byte]), 0.005)] + [head(mark)[40:]],
    "first letter, silence": lambda mark: [b"G", 1.3, head(mark)[1:]],
    "CR LF": before(b"\r\n"),
    "LF": before(b"\n"),
    "CR LF, silence": before(b"\r\n", 1.3),
    "many CR LF": before(b"\r\n" * 20),
    "blank": before(b" "),
    "tab": before(b"\t"),
    "NUL": before(b"\x00"),
    "digit": before(b"1"),
    "byte order mark": before(b"\xef\xbb\xbf"),
    "high bytes": before(b"\xff\xfe"),
    "token characters": before(b"!#$"),
    "small method": line("get {path} HTTP/1.1"),
    "method with digit": line("M1 {path} HTTP/1.1"),
    "digit first in method": line("1M {path} HTTP/1.1"),
    "method of 30 letters": line("ABCDEFGHIJKLMNOPQRSTUVWXYZABCD {path} HTTP/1.1"),
    "method of 300 letters": line("A" * 300 + " {path} HTTP/1.1"),
    "two blanks": line("GET  {path} HTTP/1.1"),
    "blanks at the end": line("GET {path} HTTP/1.1  "),
    "tab as blank": line("GET\t{path}\tHTTP/1.1"),
    "tab after method": line("GET\t{path} HTTP/1.1"),
    "no slash": lambda mark: [head(mark, f"GET private-{mark}. HTTP/1.1")],
    "whole address": lambda mark: [head(mark, f"GET http://app/private-{mark}. HTTP/1.1")],
    "small version": line("GET {path} http/1.1"),
    "HTTP/1.0": line("GET {path} HTTP/1.0"),
    "HTTP/0.9": lambda mark: [f"GET /private-{mark}.\r\n".encode()],
    "HTTP/1.2": line("GET {path} HTTP/1.2"),
    "HTTP/2.0 as text": line("GET {path} HTTP/2.0"),
    "version 01.1": line("GET {path} HTTP/01.1"),
    "LF only": line("GET {path} HTTP/1.1", end="\n"),
    "CR only": line("GET {path} HTTP/1.1", end="\r"),
    "long line": line("GET {path}?" + "a" * 9000 + " HTTP/1.1"),
    "pipelined second": lambda mark: [b"GET /public HTTP/1.1\r\nHost: app\r\n\r\n" + head(mark)],
    "pipelined second, small": lambda mark: [b"GET /public HTTP/1.1\r\nHost: app\r\n\r\n" + head(mark, "get {path} HTTP/1.1")],
    "later on the connection": lambda mark: [b"GET /public HTTP/1.1\r\nHost: app\r\n\r\n", 0.4, head(mark)],
    "smuggled in a body": lambda mark: [b"POST /public HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + head(mark)],
    "smuggled by two lengths": lambda mark: [b"POST /public HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\nContent-Length: 300\r\n\r\n" + head(mark)],
    "dot segments": lambda mark: [head(mark, f"GET /public/../private-{mark}. HTTP/1.1")],
    "encoded dots": lambda mark: [head(mark, f"GET /public/%2e%2e/private-{mark}. HTTP/1.1")],
    "folded identity": lambda mark: [f"GET /public HTTP/1.1\r\nHost: app\r\nX: 1\r\n weft-client-id: spiffe://forged/{mark}.\r\n\r\n".encode()],
    "identity with a blank": lambda mark: [f"GET /public HTTP/1.1\r\nHost: app\r\nweft-client-id : spiffe://forged/{mark}.\r\n\r\n".encode()],
    "identity in capitals": lambda mark: [f"GET /public HTTP/1.1\r\nHost: app\r\nWEFT-CLIENT-ID: spiffe://forged/{mark}.\r\n\r\n".encode()],
    # What servers make `_` of.
    "identity with dots": lambda mark: [f"GET /public HTTP/1.1\r\nHost: app\r\nweft.client.id: spiffe://forged/{mark}.\r\n\r\n".encode()],
    "identity with a tilde, as trailer": lambda mark: [f"POST /public HTTP/1.1\r\nHost: app\r\nTrailer: weft~client-id\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nweft~client-id: spiffe://forged/{mark}.\r\n\r\n".encode()],
    "identity as trailer": lambda mark: [f"POST /public HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nweft-client-id: spiffe://forged/{mark}.\r\n\r\n".encode()],
    "HTTP/2": lambda mark: [http2(mark)],
    "HTTP/2, preface in two": lambda mark: [http2(mark)[:10], 0.3, http2(mark)[10:]],
    "HTTP/2, preface late": lambda mark: [1.3, http2(mark)],
    "HTTP/2 behind CR LF": lambda mark: [b"\r\n" + http2(mark)],
    "upgrade h2c": upgrade("h2c"),
    "upgrade h2c with a hard blank": upgrade("h2c\xa0"),
    "upgrade list": upgrade("h2c, foo"),
    "upgrade foo, h2c": upgrade("foo, h2c"),
    "upgrade in capitals": upgrade("H2C"),
    "upgrade twice": upgrade("websocket", "Upgrade: h2c\r\n"),
    "weft-upgrade": upgrade("websocket", "weft-upgrade: h2c\r\n"),
    "CONNECT": lambda mark: [b"CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\n", 0.3, head(mark)],
    "TLS first": lambda mark: [b"\x16\x03\x01\x00\x20" + b"\x01" * 32 + head(mark)],
    "proxy protocol": lambda mark: [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + head(mark)],
    "Redis, then HTTP": lambda mark: [b"*1\r\n$4\r\nPING\r\n" + head(mark)],
    "memcached, then HTTP": lambda mark: [b"get k\r\n", 0.3, head(mark)],
    # What llhttp takes for requests, and other servers with headers after any line.
    "RTSP": line("GET {path} RTSP/1.0"),
    "RTSP in small letters": line("GET {path} rtsp/1.0"),
    "RTSP behind CR LF": lambda mark: [b"\r\n" + head(mark, "GET {path} RTSP/1.0")],
    "RTSP behind LF": lambda mark: [b"\n" + head(mark, "GET {path} RTSP/1.0", end="\n")],
    "RTSP behind CR LF, silence": lambda mark: [b"\r\n", 1.3, head(mark, "GET {path} RTSP/1.0")],
    "RTSP letter by letter": lambda mark: [piece for byte in head(mark, "GET rtsp://app{path} RTSP/1.0") for piece in (bytes([byte]), 0.003)],
    "RTSP, two blanks": line("GET  {path} RTSP/1.0"),
    "RTSP, whole address": line("GET rtsp://app{path} RTSP/1.0"),
    "RTSP, silence in the line": lambda mark: [head(mark, "GET rtsp://app{path} RTSP/1.0")[:12], 1.3, head(mark, "GET rtsp://app{path} RTSP/1.0")[12:]],
    "RTSP, then HTTP": later(b"OPTIONS rtsp://app/ RTSP/1.0\r\nCSeq: 1\r\n\r\n", 0.3),
    "ICE": line("SOURCE {path} ICE/1.0"),
    "ICE behind CR LF": lambda mark: [b"\r\n" + head(mark, "SOURCE {path} ICE/1.0")],
    "ICE, no slash": lambda mark: [head(mark, f"SOURCE private-{mark}. ICE/1.0")],
    "another name and version": lambda mark: [head(mark, f"GET private-{mark}. WORD/12.34")],
    "words after the version": lambda mark: [head(mark, f"GET private-{mark}. HTTP/1.1 x")],
    "no version, headers": line("GET {path}"),
    "no version, headers, behind CR LF": lambda mark: [b"\r\n" + head(mark, "GET {path}")],
    "no version, no slash, headers": lambda mark: [head(mark, f"GET private-{mark}.")],
    "no version, identity in capitals": lambda mark: [f"\r\nGET /private-{mark}.\r\nWEFT_CLIENT_ID: spiffe://forged/{mark}.\r\n\r\n".encode()],
    "no version, identity with dots": lambda mark: [f"\r\nGET /private-{mark}.\r\nweft.client.id: spiffe://forged/{mark}.\r\n\r\n".encode()],
    "no version, identity late": lambda mark: [f"\r\nGET /private-{mark}.\r\nweft-cl".encode(), 1.3, f"ient-id: spiffe://forged/{mark}.\r\n\r\n".encode()],
    "no version, identity behind CR": lambda mark: [f"\r\nGET /private-{mark}.\r\nX: 1\rweft-client-id: spiffe://forged/{mark}.\r\n\r\n".encode()],
}
# Bytes that no HTTP server would read as a request. Where only bytes are ruled they may
# pass, and what they claim about identities means nothing to who reads them.
NOT_HTTP = {"NUL", "high bytes", "byte order mark", "TLS first", "Redis, then HTTP"}


def try_one(way, number, name, host, port):
    mark = f"{way}-{number}"
    try:
        one = socket.create_connection((host, port), timeout=PATIENCE)
    except OSError as error:
        return type(error).__name__
    got = b""
    with one:
        try:
            for piece in CLASSES[name](mark):
                if isinstance(piece, float):
                    time.sleep(piece)
                else:
                    one.sendall(piece)
            while len(got) < 3000:
                data = one.recv(4096)
                if not data:
                    return summary(got) + " FIN"
                got += data
        except TimeoutError:
            return summary(got) + " open"
        except OSError:
            return summary(got) + " RST"
    return summary(got)


def summary(got):
    return got.split(b"\r\n")[0][:30].decode("latin-1")


def main():
    way, *addresses = sys.argv[1:]
    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
        tries = {}
        for address in addresses:
            host, port = address.rsplit(":", 1)
            for number, name in enumerate(CLASSES):
                tries[pool.submit(try_one, way, number, name, host, int(port))] = (name, address)
        for one in concurrent.futures.as_completed(tries):
            name, address = tries[one]
            print(json.dumps({"class": name, "to": address, "answer": one.result()}))


if __name__ == "__main__":
    main()
