"""Answers whose streams are reset with NO_ERROR before they end, read with Python's h2:
`part.py HOST:PORT`. Prints how much came of each, and how it ended."""

import collections
import sys

from h2_connection import Connection

AT_ONCE = 20
host, port = sys.argv[1].rsplit(":", 1)


def together(connection, size):
    streams = [connection.request(f"/part/{size}", "GET", end=True) for _ in range(AT_ONCE)]
    connection.flush()
    came = collections.Counter(connection.finish(stream) for stream in streams)
    right = sum(connection.bodies[stream] == (b"0123456789abcdef" * (size // 16 + 1))[:size] for stream in streams)
    return f"{right} right, " + ", ".join(f"{count} x {one}" for one, count in sorted(came.items()))


all_on_one = Connection(host, port)
for size in (1, 20_000, 300_000):
    print(f"{size}: {together(all_on_one, size)}")
print(f"behind them: {all_on_one.finish(all_on_one.request('/hello', 'GET', end=True))}")
