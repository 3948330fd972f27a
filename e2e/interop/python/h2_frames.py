"""Requests as a client of one's own making sends them, frame by frame, with Python's h2:
`h2_frames.py HOST:PORT ROUNDS`. The server echoes at /echo. Prints what came back."""

import collections
import sys
import time

import h2.errors
import h2.exceptions
from h2_connection import Connection

host, port = sys.argv[1].rsplit(":", 1)
rounds = int(sys.argv[2])


def show(what, act):
    connection = Connection(host, port)
    try:
        print(f"{what}: {act(connection)}")
    except (h2.exceptions.H2Error, OSError) as error:
        print(f"{what}: {type(error).__name__} {error} {connection.gone or ''}")
    connection.socket.close()


def many(what, act):
    """The same over and over on one connection; only what it comes to is printed."""

    def over_and_over(connection):
        came = collections.Counter()
        for _ in range(rounds):
            came[act(connection)] += 1
            if connection.gone:
                break
        return ", ".join(f"{count} x {one}" for one, count in sorted(came.items()))

    show(f"{what}, {rounds} times on one connection", over_and_over)


def pieces(*frames, trailers=None, padding=None):
    def act(connection):
        stream = connection.request("/echo")
        for at, frame in enumerate(frames):
            connection.data(stream, frame, end=trailers is None and at == len(frames) - 1, padding=padding)
        if trailers:
            connection.h2.send_headers(stream, trailers, end_stream=True)
        return connection.finish(stream)

    return act


def host_and_no_authority(connection):
    stream = connection.h2.get_next_available_stream_id()
    head = [(":method", "GET"), (":path", "/hello"), (":scheme", "http"), ("host", f"{host}:{port}")]
    connection.h2.send_headers(stream, head, end_stream=True)
    return connection.finish(stream)


def rest_in_the_middle(first):
    """Long enough that a proxy takes the stream for a slow one again."""

    def act(connection):
        stream = connection.request("/echo")

        def send(size, last=False):
            for at in range(0, size, 16384):
                connection.data(stream, b"x" * min(16384, size - at), end=last and at + 16384 >= size)
            connection.flush()

        send(first)
        while len(connection.bodies[stream]) < first and not connection.gone:
            connection.read()
        time.sleep(1.2)
        send(1_000_000, last=True)
        return connection.finish(stream)

    return act


def left_in_the_middle(connection):
    for _ in range(20):
        stream = connection.request("/bytes/300000", "GET", end=True)
        connection.flush()
        while stream not in connection.bodies and not connection.gone:
            connection.read()
        connection.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    return connection.finish(connection.request("/hello", "GET", end=True))


def upload_that_is_left(connection):
    for _ in range(20):
        stream = connection.request("/size")
        connection.data(stream, b"half")
        connection.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    return connection.finish(connection.request("/hello", "GET", end=True))


def fifty_at_once(connection):
    streams = [connection.request("/echo") for _ in range(50)]
    for stream in streams:
        connection.data(stream, b"%d " % stream * 50)
    for stream in streams:
        connection.data(stream, b"", end=True)
    ends = [connection.finish(stream) for stream in streams]
    right = sum(connection.bodies[stream] == b"%d " % stream * 50 for stream in streams)
    return f"{right} right, {len([one for one in ends if one.endswith(' end')])} ended"


def settled(connection):
    """The server answers while the request goes on, and the end comes from the client."""
    stream = connection.request("/echo")
    said = []
    for n in range(4):
        connection.data(stream, b"piece %d" % n)
        connection.flush()
        while len(connection.bodies[stream]) < 7 * (n + 1) and not connection.gone and stream not in connection.ends:
            connection.read()
        said.append(len(connection.bodies[stream]))
    connection.data(stream, b"", end=True)
    return f"{said} {connection.finish(stream)}"


show("GET", lambda at: at.finish(at.request("/hello", "GET", end=True)))
show("HEAD", lambda at: at.finish(at.request("/hello", "HEAD", end=True)))
show("host and no :authority", host_and_no_authority)
show("headers, then one empty frame that ends", pieces(b""))
show("one frame that ends", pieces(b"abc"))
show("a frame, then an empty one that ends", pieces(b"abc", b""))
show("empty frames between", pieces(b"a", b"", b"", b"b", b"", b"c"))
show("empty frames first", pieces(b"", b"", b"abc"))
show("padded frames", pieces(b"abc", b"def", padding=17))
show("trailers after data", pieces(b"abc", trailers=[("x-check", "7")]))
show("trailers after an empty frame", pieces(b"abc", b"", trailers=[("x-check", "7")]))
show("frames of one byte", pieces(*[b"x"] * 3000, b""))
show("frames of 16 KiB", pieces(*[b"y" * 16384] * 20, b""))
show("in turns", settled)
for kilobytes in (200, 600, 1200, 2500):
    show(f"a rest after {kilobytes} KB", rest_in_the_middle(kilobytes * 1000))
show("fifty at once, each ended by an empty frame", fifty_at_once)
show("twenty answers that are left, then one that is not", left_in_the_middle)
show("twenty uploads that are left, then one that is not", upload_that_is_left)
show("trailers of the server", lambda at: at.finish(at.request("/trailers", "GET", end=True)))
show("a server that breaks off", lambda at: at.finish(at.request("/abort", "GET", end=True)))
many("one frame that ends", pieces(b"abc"))
many("a frame, then an empty one that ends", pieces(b"abc", b""))
many("an empty frame between", pieces(b"a", b"", b"b"))
many("only an empty frame that ends", pieces(b""))
