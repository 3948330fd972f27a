"""An HTTP/2 peer that may break the protocol's rules: what it sends on one connection, what it
receives there, and floods of frames that cost their sender next to nothing.

Such a flood has a bound, so that measurements beside it show the cost of its frames to their
reader, and not the machine's cost of making them.
"""

import asyncio
import struct
import time

import hpack

import frames
from frames import frame

# Frames of a batch: as many as a peer of the proxy may have requests at once.
BATCH = 128
# Frames in a second, of all connections of a flood together; a slower reader is sent fewer.
# Ten connections send five times what ends a connection of the proxy, 2 000 a second.
RATE = 100_000
# The stream to which empty DATA belongs, and one that is never opened.
OPEN, IDLE = 3, 5
CANCEL = struct.pack(">I", 8)
CONTROL = {
    "pings": frame(frames.PING, 0, 0, b"8 octets"),
    "settings": frame(frames.SETTINGS, 0, 0),
    "updates": frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
    # It depends on no other stream, and has the weight that streams have without it.
    "priorities": frame(frames.PRIORITY, 0, IDLE, struct.pack(">IB", 0, 15)),
    "empty": frame(frames.DATA, 0, OPEN),
}
# A field of a thousand bytes: not indexed, named x, and its length. What follows is its value.
LONG_FIELD = b"\x00\x01x\x7f" + bytes([(1000 - 127) & 0x7F | 0x80, (1000 - 127) >> 7])


class Peer:
    """What it says; `seen` counts it, and `connections` is how many share RATE."""

    def __init__(self, writer, seen, connections):
        self.writer, self.seen, self.encoder = writer, seen, hpack.Encoder()
        self.answered = asyncio.Event()
        self.pause, self.due = BATCH * connections / RATE, time.monotonic()

    def send(self, what, flags, stream, content=b""):
        self.writer.write(frame(what, flags, stream, content))
        self.seen["frames"] += 1

    def ask(self, stream, fields, over):
        self.send(frames.HEADERS, frames.END_HEADERS | (frames.END_STREAM if over else 0), stream, self.encoder.encode(fields))
        self.seen["requests"] += 1

    async def send_batch(self, batch):
        """Waits for the reader, and for this connection's turn."""
        self.writer.write(batch)
        self.seen["frames"] += BATCH
        await self.writer.drain()
        now = time.monotonic()
        # What could not be sent in time is not made up for.
        self.due = max(self.due + self.pause, now)
        await asyncio.sleep(self.due - now)

    async def ask_first(self, fields):
        """A request that is answered, if only by a reset: it proves that the peer reads the flood behind it."""
        self.ask(1, fields, True)
        await self.answered.wait()

    async def flood(self, kind, upload):
        """Frames of this kind of CONTROL without end. `upload` are the fields of the request of
        whose body nothing but empty frames come."""
        if kind == "empty":
            self.ask(OPEN, upload, False)
        batch = CONTROL[kind] * BATCH
        while True:
            await self.send_batch(batch)

    async def take_back(self, fields):
        """Rapid reset: a batch of requests, and a batch of resets behind it. The request was asked
        once before, so that all of its fields are in the table and its head is the same each time."""
        block, first = self.encoder.encode(fields), OPEN
        while True:
            streams = range(first, first + 2 * BATCH, 2)
            await self.send_batch(b"".join(frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, block) for stream in streams))
            await self.send_batch(b"".join(frame(frames.RST_STREAM, 0, stream, CANCEL) for stream in streams))
            self.seen["requests"] += BATCH
            first = streams.stop


async def listen(reader, peer, answers, mute=False):
    """Reads what comes, counts the statuses in `answers`, and answers what a peer that keeps to
    the rules would, unless it is `mute`. Ends with the connection."""
    decoder, seen = hpack.Decoder(), peer.seen
    while True:
        length, what, flags, stream = frames.read_head(await reader.readexactly(frames.HEAD))
        content = await reader.readexactly(length)
        if what == frames.HEADERS:
            fields = dict(decoder.decode(content))
            # Trailers have none.
            if ":status" in fields:
                answers[fields[":status"]] += 1
            peer.answered.set()
        elif what == frames.RST_STREAM:
            seen["resets"] += 1
            peer.answered.set()
        elif what == frames.GOAWAY:
            seen["goaways"] += 1
        elif what == frames.PING and not flags & frames.ACK:
            seen["pings"] += 1
            if not mute:
                peer.send(frames.PING, frames.ACK, 0, content)
        elif what == frames.SETTINGS and not flags & frames.ACK and not mute:
            peer.send(frames.SETTINGS, frames.ACK, 0)
        elif what == frames.DATA and length and not mute:
            peer.send(frames.WINDOW_UPDATE, 0, 0, length.to_bytes(4, "big"))


async def converse(reader, peer, saying, answers, mute=False):
    """Says `saying`, a coroutine, while it listens."""
    peer.writer.write(frames.PREFACE + frame(frames.SETTINGS, 0, 0))
    said = asyncio.create_task(saying)
    try:
        await listen(reader, peer, answers, mute)
    finally:
        said.cancel()
        # Where the connection ended while it wrote, that is why.
        await asyncio.gather(said, return_exceptions=True)
