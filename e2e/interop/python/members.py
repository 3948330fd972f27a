"""A hostile peer for some seconds: `members.py KIND HOST:PORT COUNT SECONDS [CERTIFICATE...]`.

With certificates it is one member of the mesh, or several that deal the connections out
among them, and PORT is the mesh's; without, it is anybody who speaks HTTP/2. Kinds:

mute     a request, and no answer to SETTINGS, PING or GOAWAY
tunnels  a hundred tunnels on each connection, in which nothing is said
hoard    a tunnel on each connection, so that each of them is in use
half     a head without END_HEADERS, whose rest comes a byte a second in CONTINUATION
uploads  a hundred POSTs on each connection, of whose bodies nothing comes
forged   paths that no rule admits, and headers of the mesh's own, again and again
forged1  the same over dedicated connections, which speak HTTP/1.1
pings, settings, updates, priorities, empty
         frames of this kind over and over, of the last those of DATA without a byte
control  all these kinds, dealt out among the connections
resets   requests that are taken back at once, 128 at a time

Prints as JSON what it did and what was answered, and on a last line the same in words.
"""

import asyncio
import collections
import itertools
import json
import ssl
import sys
import time

import hpack

import frames
import h2_peer

kind, address, count, seconds, *certificates = sys.argv[1:]
count, seconds = int(count), float(seconds)
host, port = address.rsplit(":", 1)
end = time.monotonic() + seconds
# The application's port that each kind asks for, as harness/first_bytes.py and harness/attack.py have them.
TARGETS = {"mute": 9002, "tunnels": 9003, "hoard": 9003, "half": 9002, "uploads": 9004, "forged": 9001, "forged1": 9002,
           **dict.fromkeys((*h2_peer.CONTROL, "control", "resets"), 9004)}
STREAMS = range(1, 200, 2)
# Seconds before a connection that ended or was refused is replaced, and between two rounds.
PAUSE, ROUND = 0.5, 1
# Requests of a round: fewer than one connection may have at once, and no load by themselves.
TOGETHER = 32
HANDSHAKE = 10
# Seconds after its end that it is waited for: a handshake that still goes on then shows nothing.
AFTER = 2
BODY = "100000000"
# What only the mesh itself says.
OWN = [("weft-client-id", "{identity}"), ("weft_client_id", "{identity}"), ("Weft-Client-Id", "{identity}"), ("weft.client.id", "{identity}"), ("weft~client-id", "{identity}"), ("weft-shadow", "true"), ("weft-shadow", "read-only"),
       ("weft-upgrade", "h2c"), ("weft-status", "200"), ("weft-target", "/public"), ("weft-unsent", "1"), ("weft-proof", "{identity}"), ("weft-port", "9003"), ("weft.port", "9003")]
seen, answers = collections.Counter(), collections.Counter()
held = 0


def lies():
    """Requests that must not be believed, with a number each that is found again in what arrives."""
    number = 0
    for path in ("/private-{mark}", "/public", "/public/../private-{mark}"):
        for speak in ("http1", "http2"):
            for name, value in OWN:
                number += 1
                mark, identity = f"member-{number}.", f"spiffe://forged/member-{number}."
                yield ("GET", path.format(mark=mark), speak, [("weft-client-id", identity), (name, value.format(identity=identity))])
    for to in ("websocket", "h2c", "websocket, h2c"):
        number += 1
        yield "CONNECT", "", "http1", [("weft-upgrade", to), ("weft-target", f"/private-member-{number}."), ("weft-client-id", f"spiffe://forged/member-{number}.")]


# Of all connections together, so that a connection closed for one lie does not stop the others.
LIES = itertools.cycle(lies())
# Of a connection each, where all kinds are sent.
KINDS = itertools.cycle(h2_peer.CONTROL)


def head(method, path, speak, more=()):
    """The fields of a request."""
    fields = [(":method", method), (":authority", "app")]
    if method != "CONNECT":
        fields += [(":scheme", "http"), (":path", path)]
    if certificates:
        fields += [("weft-port", str(TARGETS[kind])), ("weft-protocol", speak)]
    return fields + list(more)


class Talk(h2_peer.Peer):
    """What this peer says on one connection."""

    async def mute(self):
        self.ask(1, head("GET", "/public", "http1"), True)

    async def tunnels(self):
        for stream in STREAMS if kind == "tunnels" else (1,):
            self.ask(stream, head("POST", "/", "tcp"), False)

    hoard = tunnels

    async def half(self):
        block = self.encoder.encode(head("GET", "/public", "http1")) + h2_peer.LONG_FIELD
        self.send(frames.HEADERS, frames.END_STREAM, 1, block)
        while True:
            await asyncio.sleep(ROUND)
            self.send(frames.CONTINUATION, 0, 1, b"a")

    async def uploads(self):
        for stream in STREAMS:
            self.ask(stream, head("POST", "/stuck", "http1", [("content-length", BODY)]), False)

    async def forged(self):
        stream = 1
        while True:
            for method, path, speak, more in itertools.islice(LIES, TOGETHER):
                # In capitals it would be no HTTP/2, and end the connection.
                self.ask(stream, head(method, path, speak, [one for one in more if one[0].islower()]), True)
                stream += 2
            await asyncio.sleep(ROUND)

    async def control(self):
        await self.ask_first(head("GET", "/public", "http1"))
        await self.flood(kind if kind in h2_peer.CONTROL else next(KINDS), head("POST", "/stuck", "http1", [("content-length", BODY)]))

    pings = settings = updates = priorities = empty = control

    async def resets(self):
        fields = head("GET", "/public", "http1")
        await self.ask_first(fields)
        await self.take_back(fields)


async def http2(reader, writer):
    talk = Talk(writer, seen, count)
    # Between the frames of a head nothing else may come: it would end the connection.
    await h2_peer.converse(reader, talk, getattr(talk, kind)(), answers, mute=kind in ("mute", "half"))


async def http1(reader, writer):
    """Over a dedicated connection: one request at a time, and no upgrades."""
    while True:
        for method, path, speak, more in itertools.islice(LIES, TOGETHER):
            if method == "CONNECT":
                continue
            own = [f"{name}: {value}" for name, value in head(method, path, speak, more) if name[0] != ":"]
            writer.write(("\r\n".join([f"{method} {path} HTTP/1.1", "Host: app", *own]) + "\r\n\r\n").encode())
            seen["requests"] += 1
            got = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            answers[got.split()[1]] += 1
            length = [line.split(":")[1] for line in got.split("\r\n") if line.startswith("content-length:")]
            if length:
                await reader.readexactly(int(length[0]))
            elif "transfer-encoding:" in got:
                await reader.readuntil(b"0\r\n\r\n")
        await asyncio.sleep(ROUND)


def context(file):
    made = ssl.create_default_context()
    # Whom it attacks is no secret to it.
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.load_cert_chain(file)
    made.set_alpn_protocols(["weft-h1/1" if kind == "forged1" else "weft-h2/1"])
    return made


async def one(tls):
    global held
    while time.monotonic() < end:
        try:
            opening = asyncio.open_connection(host, int(port), ssl=tls, server_hostname="app" if tls else None)
            reader, writer = await asyncio.wait_for(opening, HANDSHAKE)
        except (OSError, TimeoutError):
            seen["refused"] += 1
            await asyncio.sleep(PAUSE)
            continue
        seen["opened"] += 1
        held += 1
        seen["most"] = max(seen["most"], held)
        try:
            await asyncio.wait_for((http1 if kind == "forged1" else http2)(reader, writer), max(end - time.monotonic(), 0.1))
        except TimeoutError:
            pass
        except (OSError, EOFError, ValueError, IndexError, hpack.HPACKError):
            seen["ended"] += 1
            await asyncio.sleep(PAUSE)
        finally:
            held -= 1
            writer.transport.abort()


async def main():
    global end
    identities = [context(file) for file in certificates] or [None]
    end = time.monotonic() + seconds
    tasks = []
    for at in range(count):
        tasks.append(asyncio.create_task(one(identities[at % len(identities)])))
        # Handshakes cost the machine that the honest load runs on.
        if at % 20 == 19:
            await asyncio.sleep(0.05)
    await asyncio.wait(tasks, timeout=max(end - time.monotonic(), 0) + AFTER)
    print(json.dumps({**seen, "answers": answers}))
    statuses = ", ".join(f"{number} x {status}" for status, number in sorted(answers.items())) or "nothing"
    print(f"{seen['most']} held at most, {seen['opened']} opened, {seen['ended']} ended by the other side, {seen['refused']} refused, "
          f"{seen['frames']} frames and {seen['requests']} requests sent, {seen['pings']} PING and {seen['goaways']} GOAWAY came, answered {statuses}")


if __name__ == "__main__":
    asyncio.run(main())
