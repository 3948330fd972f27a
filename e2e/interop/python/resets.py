"""Connections that are reset in an exchange of a protocol, and one behind them that goes on:
`resets.py KIND HOST:PORT`.

50 at once are connected, have heard the server where it speaks first, send a part of what
a client says first, and are reset (RST). Others get as far as a later exchange, in which
much is said or answered, or the last one, and are reset in the middle of what they say or
of the answer. Then one says everything.
"""

import concurrent.futures
import dataclasses
import re
import socket
import struct
import sys
import threading
import time

AT_ONCE = 50
PATIENCE = 20
# So that what was sent is on its way before the reset, which would overtake it.
UNDER_WAY = 0.1
# Servers with a process for each connection end it a moment later.
SETTLED = 0.5
# Comes in many pieces, and is the most that each of these servers takes of 50 at once.
LARGE = 500_000
# Longer ones are compared by their beginning and end.
JUDGED = 4096


@dataclasses.dataclass
class Protocol:
    first: bytes
    """What a client says first."""
    answer: bytes
    """A pattern of what the server says to that."""
    greeting: bytes = b""
    """A pattern of what the server says before."""
    later: tuple = ()
    """What is said then, in turn, and the pattern of each answer; empty where there is none. OWN is a number of the connection."""


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def amqp(method, arguments, of=10, channel=0):
    """A method, of the class `connection` unless another is named."""
    return frame(1, channel, struct.pack(">HH", of, method) + arguments)


def unroutable():
    """A message for a queue that does not exist, which comes back because it is mandatory."""
    most = 131072 - 8
    bodies = [frame(3, 1, b"r" * min(most, LARGE - at)) for at in range(0, LARGE, most)]
    return amqp(40, b"\0\0" + b"\0" + b"\x01r" + b"\x01", 60, 1) + frame(2, 1, struct.pack(">HHQH", 60, 0, LARGE, 0)) + b"".join(bodies)


def postgres(kind, content):
    return kind + struct.pack(">I", len(content) + 4) + content


def mariadb(number, content):
    return struct.pack("<I", len(content))[:3] + bytes([number]) + content


# Of MariaDB: version 4.1, secure connection, named plugin.
CAPABILITIES = 0x200 | 0x8000 | 0x80000
# Of RabbitMQ: mechanism, name and password, locale; the limits that it offers; the virtual host.
LOGIN = b"\x05PLAIN" + struct.pack(">I", 12) + b"\0guest\0guest" + b"\x05en_US"
TUNED, ROOT = struct.pack(">HIH", 2047, 131072, 0), b"\x01/\0\0"
MUCH = b"r" * LARGE
# Small enough that 50 fit into Memcached's memory, and that aiosmtpd reads 50 within a second.
SOME = 50_000
PROTOCOLS = {
    "memcached": Protocol(b"version\r\n", rb"^VERSION [\d.]+\r\n$", later=(
        (b"set r 0 0 %d\r\n%b\r\nget r\r\n" % (SOME, b"r" * SOME), rb"^STORED\r\nVALUE r 0 %d\r\nr+\r\nEND\r\n$" % SOME),
        (b"quit\r\n", b""))),
    "redis": Protocol(b"*1\r\n$4\r\nPING\r\n", rb"^\+PONG\r\n$", later=(
        (b"*3\r\n$3\r\nSET\r\n$1\r\nr\r\n$%d\r\n%b\r\n*2\r\n$3\r\nGET\r\n$1\r\nr\r\n" % (LARGE, MUCH), rb"^\+OK\r\n\$%d\r\nr+\r\n$" % LARGE),
        (b"*1\r\n$4\r\nQUIT\r\n", rb"^\+OK\r\n$"))),
    # The server pings the client at a time of its own.
    "nats": Protocol(b'CONNECT {"verbose":false}\r\nPING\r\n', rb"PONG\r\n$", rb"^INFO \{.*\} *\r\n", (
        (b"SUB r.OWN 1\r\nPUB r.OWN %d\r\n%b\r\n" % (LARGE, MUCH), rb"MSG r\.\d+ 1 %d\r\nr+\r\n(?:PING\r\n)?$" % LARGE),
        (b"PING\r\n", rb"PONG\r\n(?:PING\r\n)?$"))),
    "smtp": Protocol(b"EHLO client\r\n", rb"^(?:250-[^\n]*\n)*250 [^\n]*\n$", rb"^220 [^\n]*\n$", (
        (b"MAIL FROM:<a@client>\r\n", rb"^250 [^\n]*\n$"),
        (b"RCPT TO:<b@server>\r\n", rb"^250 [^\n]*\n$"),
        (b"DATA\r\n", rb"^354 [^\n]*\n$"),
        ((b"r" * 98 + b"\r\n") * (SOME // 100) + b".\r\n", rb"^250 [^\n]*\n$"),
        (b"QUIT\r\n", rb"^221 [^\n]*\n$"))),
    # The server's offer of keys is message 20; what follows is ssh's to try.
    "ssh": Protocol(b"SSH-2.0-client\r\n", rb"^.{5}\x14", rb"^SSH-2.0-[^\n]*\n"),
    "postgres": Protocol(struct.pack(">II", 41, 196608) + b"user\0postgres\0database\0postgres\0\0", rb"^R\0\0\0\x08\0\0\0\0.*Z\0\0\0\x05I$", later=(
        (postgres(b"Q", b"create temp table r (t text); copy r from stdin\0"), rb"G\0\0\0\x09\0\0\x01\0\0$"),
        (postgres(b"d", MUCH + b"\n") + postgres(b"c", b""), rb"COPY 1\0Z\0\0\0\x05I$"),
        (postgres(b"Q", b"select t from r\0"), rb"^T.*SELECT 1\0Z\0\0\0\x05I$"),
        (postgres(b"X", b""), b""))),
    # The last of the five packets is the end of the rows.
    "mariadb": Protocol(mariadb(1, struct.pack("<IIB", CAPABILITIES, 1 << 24, 33) + bytes(23) + b"root\0\0mysql_native_password\0"),
                        rb"^.{3}\x02\0", rb"^.{3}\0\x0a.*mysql_native_password\0$", (
        (mariadb(0, b"\x03select '%b' as r" % MUCH), rb"^\x01\0\0\x01\x01.*r\x05\0\0\x05\xfe.{4}$"),
        (mariadb(0, b"\x0e"), rb"^.{3}\x01\0"),
        (mariadb(0, b"\x01"), b""))),
    "amqp": Protocol(b"AMQP\0\0\x09\x01", rb"^\x01\0\0.{4}\0\x0a\0\x0a.*\xce$", later=(
        (amqp(11, struct.pack(">I", 0) + LOGIN), rb"^\x01\0\0.{4}\0\x0a\0\x1e.*\xce$"),
        (amqp(31, TUNED) + amqp(40, ROOT) + amqp(10, b"\0", 20, 1) + unroutable(), rb"\x01\0\x01.{4}\0\x3c\0\x32.*r\xce$"),
        (amqp(50, b"\0\xc8\0\0\0\0\0"), rb"\x01\0\0\0\0\0\x04\0\x0a\0\x33\xce$"))),
    "stomp": Protocol(b"CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0", rb"^CONNECTED\n.*\n\n\0\n?$", later=(
        (b"SUBSCRIBE\nid:0\ndestination:/topic/r.OWN\n\n\0SEND\ndestination:/topic/r.OWN\ncontent-length:%d\n\n%b\0" % (LARGE, MUCH), rb"MESSAGE\n.*r\0\n?$"),
        (b"DISCONNECT\nreceipt:r\n\n\0", rb"RECEIPT\nreceipt-id:r\n\n\0"))),
}

kind, address = sys.argv[1:]
host, port = address.rsplit(":", 1)
protocol = PROTOCOLS[kind]


def connect():
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def hear(one, pattern):
    """None, or what came instead of it."""
    got, end = b"", time.monotonic() + PATIENCE
    try:
        while time.monotonic() < end:
            piece = one.recv(65536)
            got += piece
            judged = got if len(got) <= 2 * JUDGED else got[:JUDGED] + got[-JUDGED:]
            if re.search(pattern, judged, re.DOTALL):
                return None
            if not piece:
                return f"{got[:200]!r} FIN"
    except (TimeoutError, ConnectionResetError) as error:
        return f"{got[:200]!r} {type(error).__name__}"
    return f"{got[:200]!r} and no more"


def reset(one):
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def exchanges(number):
    """What this connection says, and the pattern of each answer."""
    said = [(protocol.first, protocol.answer), *protocol.later]
    return [(says.replace(b"OWN", b"%03d" % number), pattern) for says, pattern in said]


def break_off(number, at, sent, answered, together):
    """Whether all went well until the connection is reset in the exchange `at`."""
    one = connect()
    # None resets before all are connected.
    together.wait(PATIENCE)
    heard = [hear(one, protocol.greeting)] if protocol.greeting and (sent or at) else []
    said = exchanges(number)
    for says, pattern in said[:at]:
        one.sendall(says)
        heard.append(hear(one, pattern))
    one.sendall(said[at][0][:sent])
    if answered:
        heard.append(hear(one, b"."))
    else:
        time.sleep(UNDER_WAY)
    reset(one)
    return all(wrong is None for wrong in heard)


def stages():
    """Exchange, bytes that are sent in it, and whether the response has started at the reset."""
    whole = len(protocol.first)
    yield from [(0, 0, False), (0, 1, False), (0, whole // 2, False), (0, whole - 1, False), (0, whole, False), (0, whole, True)]
    for at, (says, pattern) in enumerate(protocol.later, 1):
        yield from [(at, len(says) // 2, False), (at, len(says), bool(pattern))]


for at, sent, answered in stages():
    together = threading.Barrier(AT_ONCE)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        good = sum(pool.map(lambda number: break_off(number, at, sent, answered, together), range(AT_ONCE)))
    print(f"{good} of {AT_ONCE} reset in exchange {at + 1} after {sent} of {len(exchanges(0)[at][0])} bytes{' and the answer' if answered else ''}", flush=True)
    time.sleep(SETTLED)

with connect() as one:
    if protocol.greeting:
        print(f"one behind them: greeted {hear(one, protocol.greeting) or 'ok'}")
    for number, (says, pattern) in enumerate(exchanges(AT_ONCE), 1):
        one.sendall(says)
        if pattern:
            print(f"one behind them: answered {number} {hear(one, pattern) or 'ok'}")
