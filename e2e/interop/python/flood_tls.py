"""One flood within TLS for some seconds, by a client without a certificate:
`flood_tls.py KIND HOST:PORT COUNT SECONDS PATH`. Kinds, over HTTP/1.1:

head     heads that come byte by byte         body     bodies that come byte by byte
http     as many requests as go
over HTTP/2, as gRPC speaks it:
head2    heads that come byte by byte         body2    bodies that come byte by byte, two on each connection
http2    as many requests as go               control  control frames, each kind on other connections
resets   requests that are taken back at once, 128 at a time
Ends with what it held at most, and what was answered.
"""

import asyncio
import collections
import itertools
import ssl
import sys
import time

import hpack

import frames
import h2_peer

kind, address, count, seconds, path = sys.argv[1:]
count, seconds = int(count), float(seconds)
host, port = address.rsplit(":", 1)
end = time.monotonic() + seconds
HTTP1 = ("head", "body", "http")
# Bytes of a body: fewer than the 32 KiB that any port accepts from an unauthenticated peer.
LENGTH = 30_000
# Seconds between two bytes, and before a connection that ended or was refused is replaced.
DRIP, PAUSE = 1, 0.2
HANDSHAKE = 10
# Seconds after its end that it is waited for: a handshake that still goes on then shows nothing.
AFTER = 2
# Requests whose bodies come on one connection over HTTP/2: as many as the controller accepts from an unauthenticated peer.
STREAMS = (1, 3)
HEAD = f"POST {path} HTTP/1.1\r\nHost: app\r\nContent-Type: application/json\r\n".encode()
BEGIN = {"head": HEAD + b"X: ", "body": HEAD + b"Content-Length: %d\r\n\r\n" % LENGTH, "http": HEAD + b"Content-Length: 2\r\n\r\n{}"}
FIELDS = [(":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "app"),
          ("content-type", "application/grpc" if path.startswith("/weft.v1.") else "application/json"), ("te", "trailers")]
KINDS = itertools.cycle(h2_peer.CONTROL)
seen, answers = collections.Counter(), collections.Counter()
held = 0


async def http1(reader, writer):
    writer.write(BEGIN[kind])
    seen["requests"] += 1
    dripping = asyncio.create_task(drip(writer)) if kind != "http" else None
    try:
        while got := await reader.read(4096):
            if got.startswith(b"HTTP/1."):
                answers[got[9:12].decode("latin-1")] += 1
                if kind == "http":
                    writer.write(BEGIN[kind])
                    seen["requests"] += 1
    finally:
        if dripping:
            dripping.cancel()


async def drip(writer):
    while True:
        await asyncio.sleep(DRIP)
        writer.write(b"a")
        seen["bytes"] += 1


class Talk(h2_peer.Peer):
    """What this peer says on one connection of HTTP/2."""

    async def head2(self):
        self.send(frames.HEADERS, frames.END_STREAM, 1, self.encoder.encode(FIELDS) + h2_peer.LONG_FIELD)
        self.seen["requests"] += 1
        while True:
            await asyncio.sleep(DRIP)
            self.send(frames.CONTINUATION, 0, 1, b"a")

    async def body2(self):
        for stream in STREAMS:
            self.ask(stream, FIELDS, False)
            # gRPC says how long a message is before it comes.
            self.send(frames.DATA, 0, stream, b"\x00" + LENGTH.to_bytes(4, "big"))
        while True:
            await asyncio.sleep(DRIP)
            for stream in STREAMS:
                self.send(frames.DATA, 0, stream, b"a")

    async def http2(self):
        for stream in itertools.count(1, 2):
            self.answered.clear()
            self.ask(stream, FIELDS, True)
            await self.answered.wait()

    async def control(self):
        await self.ask_first(FIELDS)
        await self.flood(next(KINDS), FIELDS)

    async def resets(self):
        await self.ask_first(FIELDS)
        await self.take_back(FIELDS)


async def http2(reader, writer):
    talk = Talk(writer, seen, count)
    await h2_peer.converse(reader, talk, getattr(talk, kind)(), answers, mute=kind == "head2")


async def one(tls):
    global held
    while time.monotonic() < end:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port), ssl=tls, server_hostname="app"), HANDSHAKE)
        except (OSError, TimeoutError):
            seen["refused"] += 1
            await asyncio.sleep(PAUSE)
            continue
        held += 1
        seen["opened"] += 1
        seen["most"] = max(seen["most"], held)
        try:
            await asyncio.wait_for((http1 if kind in HTTP1 else http2)(reader, writer), max(end - time.monotonic(), 0.1))
        except (OSError, TimeoutError, EOFError, ValueError, IndexError, hpack.HPACKError):
            pass
        finally:
            held -= 1
            writer.transport.abort()
        await asyncio.sleep(PAUSE)


async def main():
    global end
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    anybody.set_alpn_protocols(["http/1.1" if kind in HTTP1 else "h2"])
    end = time.monotonic() + seconds
    tasks = []
    for at in range(count):
        tasks.append(asyncio.create_task(one(anybody)))
        # Handshakes cost the machine that the others run on.
        if at % 20 == 19:
            await asyncio.sleep(0.05)
    await asyncio.wait(tasks, timeout=max(end - time.monotonic(), 0) + AFTER)
    statuses = ", ".join(f"{number} x {status}" for status, number in sorted(answers.items())) or "nothing"
    print(f"{seen['most']} held at most, {seen['opened']} opened, {seen['refused']} refused, {seen['requests']} requests and {seen['frames']} frames sent, "
          f"{seen['resets']} RST_STREAM and {seen['goaways']} GOAWAY came, answered {statuses}")


if __name__ == "__main__":
    asyncio.run(main())
