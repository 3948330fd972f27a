"""Websockets that are reset at every stage, by their client and by their server, and one beside
them that goes on: `websocket_resets.py HOST:PORT`, of which websocket.py is the server.

50 at once do the same: they get as far as the stage says, and are reset (RST), or have the
server reset them. Then the server must have none of them left, and the one that has been open
all along must be answered. Frames are made by hand: no library stops in the middle of one.
"""

import concurrent.futures
import os
import socket
import struct
import sys
import threading
import time

AT_ONCE = 50
PATIENCE = 20
# So that what was sent is on its way before the reset, which would overtake it.
UNDER_WAY = 0.1
# Comes in many pieces.
LARGE = 500_000
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

host, port = sys.argv[1].rsplit(":", 1)


def request(path="/"):
    return (f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n").encode()


def frame(payload, kind=BINARY):
    """As a client has to send it: masked."""
    size, mask = len(payload), os.urandom(4)
    length = bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0xFE, size) if size < 65536 else struct.pack(">BQ", 0xFF, size)
    key = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
    return bytes([0x80 | kind]) + length + mask + masked


class Socket:
    def __init__(self):
        self.raw, self.got = socket.create_connection((host, int(port)), timeout=PATIENCE), b""

    def say(self, data):
        self.raw.sendall(data)

    def take(self, size):
        while len(self.got) < size:
            piece = self.raw.recv(65536)
            if not piece:
                raise EOFError("the connection has ended")
            self.got += piece
        taken, self.got = self.got[:size], self.got[size:]
        return taken

    def switched(self):
        """Whether the answer to the handshake is a 101."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.take(1)
        return head.startswith(b"HTTP/1.1 101 ")

    def open(self):
        self.say(request())
        return self.switched()

    def hear(self):
        """The content of the next message, whatever it is asked in between."""
        while True:
            kind, size = self.take(2)
            if size == 126:
                size, = struct.unpack(">H", self.take(2))
            elif size == 127:
                size, = struct.unpack(">Q", self.take(8))
            payload = self.take(size)
            if kind & 15 == PING:
                self.say(frame(payload, PONG))
            elif kind & 15 in (TEXT, BINARY):
                return payload
            else:
                raise EOFError(f"a frame of kind {kind & 15}")

    def echoes(self, payload):
        self.say(frame(payload))
        return self.hear() == payload

    def ended(self):
        """Whether it ends instead of a message; by what, a proxy in between may decide."""
        try:
            self.hear()
        except TimeoutError:
            return False
        except (EOFError, OSError):
            return True
        return False

    def reset(self):
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()


def half_of_handshake(one):
    one.say(request()[:60])
    return True


def whole_handshake(one):
    one.say(request())
    return True


def after_first_frame(one):
    good = one.open()
    one.say(frame(b"first"))
    return good


def within_frame(one):
    good = one.open() and one.echoes(b"first")
    one.say(frame(b"r" * LARGE)[:LARGE // 2])
    return good


def within_head_of_frame(one):
    good = one.open()
    one.say(frame(b"r" * LARGE)[:3])
    return good


def within_answer(one):
    good = one.open()
    one.say(frame(b"r" * LARGE))
    return good and len(one.take(1000)) == 1000


def within_close(one):
    good = one.open()
    one.say(frame(struct.pack(">H", 1000), CLOSE))
    return good


def server_in_handshake(one):
    """Directly it ends, and a proxy may say that it did."""
    one.say(request("/reset"))
    try:
        return not one.switched()
    except (EOFError, ConnectionResetError):
        return True


def server_after_frame(one):
    good = one.open() and one.echoes(b"first")
    one.say(frame(b"reset", TEXT))
    return good and one.ended()


def server_within_frame(one):
    good = one.open()
    one.say(frame(b"reset within a frame", TEXT))
    return good and one.ended()


STAGES = {
    "reset in the middle of the handshake": half_of_handshake,
    "reset behind the handshake, before its answer": whole_handshake,
    "reset behind the answer": Socket.open,
    "reset behind the first frame": after_first_frame,
    "reset behind its answer": lambda one: one.open() and one.echoes(b"first"),
    "reset in the middle of the head of a frame": within_head_of_frame,
    "reset in the middle of a frame": within_frame,
    "reset in the middle of an answer": within_answer,
    "reset behind a close": within_close,
    "reset by the server in the handshake": server_in_handshake,
    "reset by the server behind a frame": server_after_frame,
    "reset by the server in the middle of a frame": server_within_frame,
}


def break_off(stage, together):
    """Whether all went well until the reset."""
    one = Socket()
    # None resets before all are connected.
    together.wait(PATIENCE)
    try:
        good = stage(one)
    except (EOFError, OSError):
        good = False
    time.sleep(UNDER_WAY)
    one.reset()
    return good


def left(honest):
    """What the server has besides the honest one, once it has no more or for as long as one waits."""
    end = time.monotonic() + PATIENCE
    while True:
        honest.say(frame(b"how many", TEXT))
        others = int(honest.hear()) - 1
        if not others or time.monotonic() > end:
            return "ok" if not others else f"{others} left"
        time.sleep(0.1)


honest = Socket()
print(f"one beside them: {'open' if honest.open() else 'refused'}", flush=True)
for name, stage in STAGES.items():
    together = threading.Barrier(AT_ONCE)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        good = sum(pool.map(lambda _: break_off(stage, together), range(AT_ONCE)))
    print(f"{good} of {AT_ONCE} {name}; the server has none of them left: {left(honest)}; "
          f"the one beside them: {'same' if honest.echoes(b'h' * 100_000) else 'other'}", flush=True)
