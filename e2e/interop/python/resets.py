"""Connections that are reset in the first exchange of a protocol, and one behind them that
goes on: `resets.py KIND HOST:PORT`.

50 at once are connected, have heard the server where it speaks first, send a part of what
a client says first, and are reset (RST). Then one says everything, and more.
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
PATIENCE = 10
# So that what was sent is on its way before the reset, which would overtake it.
UNDER_WAY = 0.1
# Servers with a process for each connection end it a moment later.
SETTLED = 0.5


@dataclasses.dataclass
class Protocol:
    first: bytes
    """What a client says first."""
    answer: bytes
    """A pattern of what the server says to that."""
    greeting: bytes = b""
    """A pattern of what the server says before."""
    more: tuple = ()
    """What is said then, and the pattern of its answer."""


def amqp(method, arguments):
    """A frame of the class `connection`."""
    payload = struct.pack(">HH", 10, method) + arguments
    return struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce"


def postgres(kind, content):
    return kind + struct.pack(">I", len(content) + 4) + content


def mariadb(number, content):
    return struct.pack("<I", len(content))[:3] + bytes([number]) + content


# Of MariaDB: version 4.1, secure connection, named plugin.
CAPABILITIES = 0x200 | 0x8000 | 0x80000
# Of RabbitMQ: mechanism, name and password, locale.
LOGIN = b"\x05PLAIN" + struct.pack(">I", 12) + b"\0guest\0guest" + b"\x05en_US"
PROTOCOLS = {
    "memcached": Protocol(b"version\r\n", rb"^VERSION [\d.]+\r\n$", more=(b"set r 0 0 5\r\nhello\r\nget r\r\n", rb"^STORED\r\nVALUE r 0 5\r\nhello\r\nEND\r\n$")),
    "redis": Protocol(b"*1\r\n$4\r\nPING\r\n", rb"^\+PONG\r\n$", more=(b"*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n", rb"^\$5\r\nhello\r\n$")),
    "nats": Protocol(b'CONNECT {"verbose":false}\r\nPING\r\n', rb"PONG\r\n$", rb"^INFO \{.*\} *\r\n",
                     (b"SUB r 1\r\nPUB r 5\r\nhello\r\n", rb"^MSG r 1 5\r\nhello\r\n$")),
    "smtp": Protocol(b"EHLO client\r\n", rb"^(?:250-[^\n]*\n)*250 [^\n]*\n$", rb"^220 [^\n]*\n$", (b"QUIT\r\n", rb"^221 [^\n]*\n$")),
    # The server's offer of keys is message 20; what follows is ssh's to try.
    "ssh": Protocol(b"SSH-2.0-client\r\n", rb"^.{5}\x14", rb"^SSH-2.0-[^\n]*\n"),
    "postgres": Protocol(struct.pack(">II", 41, 196608) + b"user\0postgres\0database\0postgres\0\0", rb"^R\0\0\0\x08\0\0\0\0.*Z\0\0\0\x05I$",
                         more=(postgres(b"Q", b"select 40 + 2\0"), rb"D\0\0\0\x0c\0\x01\0\0\0\x0242.*Z\0\0\0\x05I$")),
    "mariadb": Protocol(mariadb(1, struct.pack("<IIB", CAPABILITIES, 1 << 24, 33) + bytes(23) + b"root\0\0mysql_native_password\0"),
                        rb"^.{3}\x02\0", rb"^.{3}\0\x0a.*mysql_native_password\0$", (mariadb(0, b"\x0e"), rb"^.{3}\x01\0")),
    "amqp": Protocol(b"AMQP\0\0\x09\x01", rb"^\x01\0\0.{4}\0\x0a\0\x0a.*\xce$", more=(amqp(11, struct.pack(">I", 0) + LOGIN), rb"^\x01\0\0.{4}\0\x0a\0\x1e.*\xce$")),
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
            if re.search(pattern, got, re.DOTALL):
                return None
            if not piece:
                return f"{got[:200]!r} FIN"
    except (TimeoutError, ConnectionResetError) as error:
        return f"{got[:200]!r} {type(error).__name__}"
    return f"{got[:200]!r} and no more"


def reset(one):
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def break_off(sent, answered, together):
    one = connect()
    # Nobody goes before all are there.
    together.wait(PATIENCE)
    heard = [hear(one, protocol.greeting)] if protocol.greeting and sent else []
    one.sendall(protocol.first[:sent])
    if answered:
        heard.append(hear(one, b"."))
    else:
        time.sleep(UNDER_WAY)
    reset(one)
    return all(said is None for said in heard)


whole = len(protocol.first)
for sent, answered in [(0, False), (1, False), (whole // 2, False), (whole - 1, False), (whole, False), (whole, True)]:
    together = threading.Barrier(AT_ONCE)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        good = sum(pool.map(lambda _: break_off(sent, answered, together), range(AT_ONCE)))
    print(f"{good} of {AT_ONCE} reset after {sent} of {whole} bytes{' and the answer' if answered else ''}", flush=True)
    time.sleep(SETTLED)

with connect() as one:
    steps = [("greeted", b"", protocol.greeting), ("answered", protocol.first, protocol.answer), ("goes on", *(protocol.more or (b"", b"")))]
    for name, says, pattern in steps:
        if pattern:
            one.sendall(says)
            print(f"one behind them: {name} {hear(one, pattern) or 'ok'}")
