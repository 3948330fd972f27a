"""What the two results of a row come to, and which differences the manual names."""

import dataclasses
import enum
import pathlib

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
MANUAL = "docs/applications.md"

# By row the words with which the manual begins the lines about the difference.
NAMED = {
    5: ("TLS, PostgreSQL, Redis and the like on a port named `http` or `grpc` are reset at their first byte",),
    7: ("`CONNECT` to a forward proxy gets 400",),
    12: ("No pod of a namespace starts after it joined the mesh, where a ResourceQuota counts limits",),
    14: (
        "A bare Pod with probes cannot be applied a second time",
        "While its proxy restarts, the application's liveness probe fails",
    ),
    17: (
        "Redis Sentinel finds no replica",
        "PostgreSQL's `pg_hba.conf`",
        "`allow`, `Require ip` and other lists of addresses",
    ),
    18: ("`nc -z`, wait-for scripts and other checks that only open a connection always succeed",),
    19: ("Calls from an ingress controller, or from any client that looks up pods itself, follow no TrafficSplit",),
    20: ("After the mesh's namespace was deleted",),
    23: ("Calls to a Service with a limit get 429 for two to four seconds though they are below it",),
    25: ("An instance whose answers break off behind their head gets no calls for a time",),
    26: ("A client over HTTP/1.1 that closes its sending direction behind its request",),
    36: ("An instance that answers 429, or gRPC 8, gets fewer calls",),
}


class Kind(enum.Enum):
    SAME = "same"
    NAMED = "named"
    DIFFERS = "DIFFERS"
    NOT_TRIED = "NOT TRIED"


@dataclasses.dataclass(frozen=True)
class Verdict:
    kind: Kind
    reason: str = ""

    def __str__(self):
        return f"{self.kind.value}: {self.reason}" if self.reason else self.kind.value

    @property
    def fails(self):
        return self.kind in (Kind.DIFFERS, Kind.NOT_TRIED)


SAME = Verdict(Kind.SAME)


def differs(reason):
    return Verdict(Kind.DIFFERS, reason)


def not_tried(reason):
    return Verdict(Kind.NOT_TRIED, reason)


def named(number):
    """Named, if the manual still has the lines."""
    return in_manual(*NAMED[number])


def in_manual(*lines):
    manual = (REPOSITORY / MANUAL).read_text(encoding="utf-8")
    for words in lines:
        if words not in manual:
            return differs(f"{MANUAL} has no line that begins with {words!r}")
    return Verdict(Kind.NAMED, f"{MANUAL}, {lines[0].replace('`', '')[:50].strip()} ...")
