"""What a row is, and what it is to try one: a foreign server, and foreign clients of
it, each once in every place. A client prints a transcript of what it saw; transcripts
must not differ between the places."""

import collections
import dataclasses
import difflib
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable

from . import differences, place


@dataclasses.dataclass
class Client:
    name: str
    line: list
    """Program and arguments; {to} becomes HOST:PORT, {host} and {port} its parts."""
    limit: int = 60
    filter: Callable = str
    """Takes out of the transcript what differs from run to run: rates, times."""
    must: str = ""
    """A pattern that the direct transcript must hold, so that a row in which nothing works does not pass."""
    named: tuple = ()
    """Differences that evidence/interop.md names and that this client may see, of `differences.NAMED`."""


@dataclasses.dataclass
class Row:
    name: str
    server: list
    """Lines of programs, which start in this order in the server's pod."""
    port: int
    declared: str
    """The protocol that the Service declares in the second place."""
    clients: list
    version: list = dataclasses.field(default_factory=list)
    """A line that prints the server's version."""
    short: bool = False
    """Part of the short form."""
    prepare: Callable = None
    """Called with the place before the server starts."""
    ready: Callable = None
    """Called with the place until it is true; else the port must listen."""


@dataclasses.dataclass
class Result:
    row: Row
    client: Client
    place: str
    transcript: str
    seconds: float
    difference: str = ""
    """What differs and is not named."""
    named: list = dataclasses.field(default_factory=list)
    """Named differences that showed."""


def try_row(row, where, only=None):
    """All clients of a row in one place."""
    try:
        return _try_row(row, where, only)
    finally:
        for program in [one for one in where.programs if one.name.startswith("server-")]:
            where.stop(program)


def _try_row(row, where, only):
    for number, line in enumerate(row.server):
        if number == 0 and row.prepare:
            row.prepare(where)
        where.start("server", [fill(one).replace("PLACE", str(where.folder)) for one in line], f"server-{number}")
    ready = row.ready or (lambda at: at.listening("server", row.port))
    place.until(lambda: ready(where), 40, f"server of {row.name} in {where.folder}")
    results = []
    for client in row.clients:
        if only and only not in client.name:
            continue
        line = [fill(one, row.port) for one in client.line]
        began = time.monotonic()
        status, out, err = where.call("client", line, client.limit)
        transcript = client.filter(out)
        if status is None:
            transcript += f"\n[no end within {client.limit} s]"
        elif status != 0:
            transcript += f"\n[status {status}] {client.filter(err)[-600:]}"
        results.append(Result(row, client, where.name, transcript, time.monotonic() - began))
    return results


# What the scripts of the harness call, which no row names.
CALLED_BY = {"curl.sh": "curl", "forward.sh": "curl", "https.sh": "curl", "mariadb.sh": "mariadb", "nghttp.sh": "nghttp", "psql.sh": "psql", "redis.sh": "redis-cli",
             "refused.sh": "curl", "short_queue.sh": "curl", "ssh.sh": "ssh"}


def absent(lines):
    """Programs of these lines that the machine does not have, also those behind a script or behind another program's options."""
    named = {str(line[0]) for line in lines}
    named |= {str(one) for line in lines for one in line if re.match(r"/[^:]+\Z", str(one))}
    named |= {CALLED_BY[name] for line in lines for one in line if (name := pathlib.PurePath(str(one)).name) in CALLED_BY}
    return sorted(one for one in named if not shutil.which(one) and not os.path.exists(one))


def fill(text, port=0):
    return str(text).replace("{to}", f"{place.SERVICE_IP}:{port}").replace("{host}", place.SERVICE_IP).replace("{port}", str(port))


def judge(direct, other):
    """Writes into `other` what differs, apart from what is named."""
    if direct.client.must and not re.search(direct.client.must, direct.transcript):
        other.difference = f"without the mesh it does not do what it should ({direct.client.must}): {direct.transcript[-1500:]}"
        return
    expected, got = direct.transcript, other.transcript
    for name in direct.client.named:
        alike = differences.NAMED[name].alike
        before = differing(expected, got)
        expected, got = alike(expected), alike(got)
        if differing(expected, got) < before:
            other.named.append(name)
    if expected != got:
        lines = difflib.unified_diff(expected.splitlines(), got.splitlines(), "direct", other.place, lineterm="", n=1)
        other.difference = "\n".join(list(lines)[:80])


def differing(one, other):
    """How many lines are not in both."""
    return sum((collections.Counter(one.splitlines()) - collections.Counter(other.splitlines())).values()) + sum(
        (collections.Counter(other.splitlines()) - collections.Counter(one.splitlines())).values())
