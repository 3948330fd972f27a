"""A client of server-sent events, which reads them line by line as the specification says:
`sse.py HOST:PORT`. The server is app_asgi.py: it sends an event each second, for ever,
with the time at which it did, by the clock that all processes of a machine share.
"""

import concurrent.futures
import http.client
import socket
import struct
import sys
import time

from app_asgi import BETWEEN

host, port = sys.argv[1].rsplit(":", 1)
PATIENCE = 8


class Events:
    def __init__(self, last=None):
        self.connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        heads = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        self.connection.request("GET", "/events", headers=heads)
        # Kept, since http.client forgets it where an answer is to end with its connection.
        self.socket = self.connection.sock
        self.answer = self.connection.getresponse()
        self.comments = 0

    def next(self):
        """Type, id and data of the next event, and how long it was on its way."""
        kind, number, data = "message", "", []
        for line in iter(self.answer.readline, b""):
            field, _, value = line.decode().rstrip("\r\n").partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "event":
                kind = value
            elif field == "id":
                number = value
            elif not field and value:
                self.comments += 1
            elif not field and data:
                return kind, number, data[0], time.monotonic() - float(data[1])
        raise EOFError("the stream has ended")

    def leave(self, reset=False):
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.answer.close()
        self.connection.close()


def listening():
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    connection.request("GET", "/listening")
    return int(connection.getresponse().read())


def until_listening(count):
    """A figure would be of this run; whether it became right is not."""
    end = time.monotonic() + PATIENCE
    while (found := listening()) != count:
        if time.monotonic() > end:
            return f"not ok, {found} streams open"
        time.sleep(0.1)
    return "ok"


def in_time(took):
    """Before the server has sent the next one, so that no proxy has buffered it."""
    return "ok" if took < BETWEEN else "not ok"


for way in ("ends its connection", "resets its connection"):
    one = Events()
    print(f"{one.answer.status} {one.answer.getheader('content-type')} {one.answer.getheader('cache-control')}")
    for _ in range(3):
        kind, number, text, took = one.next()
        print(f"{kind} {number}, {text}: in time {in_time(took)}")
    print(f"comments: {one.comments}; the server has one listener: {until_listening(1)}")
    one.leave(reset="resets" in way)
    print(f"client {way}, the server has none left: {until_listening(0)}")

again = Events(last="5")
print(f"after event 5 comes {again.next()[1]}")
again.leave()


def few(_):
    one = Events()
    got = [one.next() for _ in range(3)]
    one.leave()
    return [number for _, number, _, _ in got] == ["1", "2", "3"] and all(in_time(took) == "ok" for *_, took in got)


with concurrent.futures.ThreadPoolExecutor(50) as pool:
    print(f"50 at once, in time and in order: {'ok' if all(pool.map(few, range(50))) else 'not ok'}")
print(f"after all of them, the server has none left: {until_listening(0)}")
