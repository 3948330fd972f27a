"""The pages of the harness as a WSGI application, for gunicorn."""

import time


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hello":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
        return [b"hello\n"]
    if path.startswith("/bytes/"):
        count = int(path[7:])
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(count))])
        return (b"0123456789abcdef" * 4096)[:count] and pieces(count) or []
    if path == "/echo":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter(lambda: environ["wsgi.input"].read(8192), b"")
    if path == "/drip":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return drip()
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"none\n"]


def pieces(left):
    piece = b"0123456789abcdef" * 4096
    while left > 0:
        yield piece[:left]
        left -= len(piece)


def drip():
    for n in range(5):
        yield b"data: %d\n\n" % n
        time.sleep(0.04)
