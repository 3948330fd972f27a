"""Differences that evidence/interop.md names. Each makes two transcripts alike where they
may differ and leaves everything else as it is; what still differs fails the run."""

import dataclasses
import re
from collections.abc import Callable


@dataclasses.dataclass
class Difference:
    says: str
    reason: str
    alike: Callable


FIELD = re.compile(r"(?m)^([A-Za-z][A-Za-z0-9-]*): ")
ADDED = re.compile(r"(?im)^weft-(?:client-id|context|timeout|shadow): [^\n]*\n")
HOP = re.compile(r"(?im)^(?:connection|keep-alive): [^\n]*\n")


def sorted_heads(text):
    """The order of fields with different names has no meaning; where lines are left out it would be lost."""
    lines, head = [], []
    for line in text.splitlines():
        if FIELD.match(line):
            head.append(line)
            continue
        lines += sorted(head)
        head = []
        lines.append(line)
    return "\n".join(lines + sorted(head))


def without_trailers(text):
    """As the harness's clients print them; the raw transcript only loses the one that was not announced."""
    text = re.sub(r"(?m)((?:^|\[chunks end\]))X-Late: unannounced\\r\n", r"\1", text)
    text = re.sub(r"trailers=map\[.*?\] type", "trailers type", text)
    return re.sub(r" trailers \{[^}\n]*\}", "", text)


NAMED = {
    "names": Difference(
        "Names of HTTP/1 fields arrive in small letters, and fields with different names in another order",
        "Names have no case (RFC 9110, 5.1), and between the proxies they travel as HTTP/2 asks, in small letters.",
        lambda text: sorted_heads(FIELD.sub(lambda match: match[0].lower(), text)),
    ),
    "hop": Difference(
        "`Connection: keep-alive` and `Keep-Alive` of a server do not reach the client",
        "They speak of one connection (RFC 9110, 7.6.1); the client's connection is the proxy's, which keeps it open.",
        lambda text: HOP.sub("", text),
    ),
    "version": Difference(
        "An HTTP/1.0 request is answered as HTTP/1.0 where the server would say HTTP/1.1",
        "The version is that of the hop (RFC 9110, 2.5).",
        lambda text: re.sub(r"(?m)^HTTP/1\.[01] ", "HTTP/1.x ", text),
    ),
    "phrase": Difference(
        "The words after the status are the standard ones, or missing, whatever the server says",
        "HTTP/2 between the proxies has no such words, and clients shall ignore them (RFC 9112, 4).",
        lambda text: re.sub(r"(?m)^(HTTP/1\..) (\d{3}) .*$", r"\1 \2", text),
    ),
    "h2c": Difference(
        "The offer `Upgrade: h2c` of a server does not reach the client",
        "Raw HTTP/2 would pass beside the rules for HTTP. HTTP/2 with prior knowledge works.",
        lambda text: re.sub(r"(?im)^upgrade: h2c[^\n]*\n", "", text),
    ),
    "gone": Difference(
        "Where a server ends the connection without an answer, the proxy answers 502, `weft-reason: connection-lost`",
        "The client's connection is the proxy's, and goes on.",
        lambda text: re.sub(r"(?m): (?:unexpected EOF$|HTTP/\S+ 502 .*$)", ": no answer", text),
    ),
    "close": Difference(
        "Where a client asks for the end of its connection and the server does not end it, the proxy does",
        "As `Connection: close` says (RFC 9112, 9.6).",
        lambda text: re.sub(r"\[open after \d+ s\]", "[FIN]", text),
    ),
    "http": Difference(
        "On an undeclared port, a line that is HTTP is answered as HTTP, by the proxy where the server does not",
        "What is HTTP is judged as HTTP there. Declare a port that carries something else.",
        lambda text: re.sub(r"(?m)^(something that looks like HTTP): .*$", r"\1: *", text),
    ),
    "trailers": Difference(
        "Trailers of an HTTP/1.1 answer reach clients that say `TE: trailers`, where the server announced them, and others not",
        "Other clients need not understand them (RFC 9110, 6.5.1). gRPC sends it, and over HTTP/2 they always pass.",
        without_trailers,
    ),
    "empty": Difference(
        "An empty answer in chunks may arrive with `Content-Length: 0`, and over HTTP/2 end with its head",
        "Where the end is known with the head, nothing is left to be sent in chunks. The content is the same.",
        lambda text: re.sub(r"length=(?:-1|0) \[\] bytes=0 ", "length=* [] bytes=0 ", re.sub(r"length=(?:undefined chunked|0 ) 0 bytes", "length=* 0 bytes", text)),
    ),
    "host": Difference(
        "An empty `Host` arrives as the address that was called, where a server would refuse it (nginx, Apache)",
        "HTTP/2 between the proxies has no empty authority; it is the address that the client meant.",
        lambda text: re.sub(r"(== Host that is empty\n)(?:400|200)\b", r"\1*", text),
    ),
    "interim": Difference(
        "103 Early Hints are not passed on; over HTTP/2 no `100 Continue` comes, so that a client that asked for it waits until it gives up waiting",
        "The HTTP library passes interim responses to no caller. The final response is the same.",
        lambda text: re.sub(r"(?m)^([^:\n]*):(?: 10[03])+ ", r"\1: ", text),
    ),
    "headers": Difference(
        "A server gets `weft-client-id` with each request of a caller in the mesh; with one that has an end also `weft-timeout` "
        "and `weft-context`, and `weft-shadow` with a copy",
        "They tell who calls, what is left of the time, and what calls that are made for the request belong to. What callers write "
        "under these names does not reach a server.",
        lambda text: ADDED.sub("", text),
    ),
}

# What the mesh does without any TrafficPolicy (docs/resilience.md) and no transcript of a row can show.
BY_DEFAULT = [
    Difference(
        "A GET, HEAD or OPTIONS that is answered 503, or lost within a second, is sent once more: its server may see it, and another "
        "one answers it",
        "HTTP calls these methods safe. It goes to another endpoint, and the Services here have one each. POST, PUT, DELETE and "
        "gRPC are not sent twice.",
        str,
    ),
    Difference(
        "A GET, HEAD, OPTIONS or TRACE that a kept connection of HTTP/1.1 loses without a byte of an answer is sent once more to the "
        "same endpoint",
        "Any client that keeps connections does so (RFC 9112, 9.3.1); the connection is the proxy's.",
        str,
    ),
    Difference(
        "A server of gRPC reads less in `grpc-timeout` than its client wrote, and its stream is reset when that is over",
        "Both proxies keep the time, and pass on what is left. The client ends its call then as well.",
        str,
    ),
    Difference(
        "A server whose client leaves sees its stream reset, or its connection closed",
        "That is what it sees without proxies in between.",
        str,
    ),
]
