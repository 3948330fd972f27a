"""Calls that access rules refuse, by foreign clients: that they get a status and a body that
they can read, however much they were sending, that their connections go on, and that what is
allowed passes behind them. There is nothing to compare with, so each transcript is what it
has to be, or the run fails."""

import concurrent.futures
import pathlib
import re

from . import place
from .row import Client, Row, try_row

HERE = pathlib.Path(__file__).resolve().parents[1]
# For every member of the mesh, on every port; nothing else is allowed.
RULES = [{"name": "pages", "paths": ["/hello"]}, {"name": "calls", "paths": ["/grpc.testing.TestService/EmptyCall"]}]
PLACES = {"refused-declared": "declared", "refused-undeclared": "undeclared"}
CALLS = 1_000
BODY = "403 weft: not-allowed"
LINES = ("GET: " + BODY, "HEAD: 403", "allowed behind them: 200 hello", "connections so far: 1", "POST 1: " + BODY, "POST 1000000: " + BODY,
         "POST 1000000 of unknown length: " + BODY, f"50 at once: 50 x {BODY}", "allowed at the end: 200 hello")
ALL_REFUSED = "\n".join(LINES)


def rows(programs):
    """Servers that hardly any of the calls reaches, and the clients that make them."""
    go, python, java = programs / "go", programs / "venv/bin/python", programs / "java/grpc-java"

    def client(name, *line):
        return Client(name, list(line), 90, str.strip, rf"\A{re.escape(ALL_REFUSED)}\Z")

    def load(name, said, *line):
        return Client(name, list(line), 60, str.strip, rf"\Acalls {CALLS} failed {CALLS}\n  {CALLS} x {re.escape(said)}\Z")

    def both(*more):
        url = "http://{to}"
        return [client("Go net/http", go / "nethttp", "refused", url, *more), client("Node", "node", HERE / "node/refused.js", url, *more)]

    allowed = Client("grpc-go, one that is allowed", [go / "client", "--use_tls=false", "--server_host={host}", "--server_port={port}", "--test_case=empty_unary"], 30,
                     must=r"\A\Z")
    calls, denied = str(CALLS), "PERMISSION_DENIED weft: not-allowed"
    grpc = [
        load("grpc-go unary 100 B, 50 at once", "PermissionDenied weft: not-allowed", go / "grpcload", "-to={to}", "-calls", calls),
        load("grpc-go unary 100 KB, 50 at once", "PermissionDenied weft: not-allowed", go / "grpcload", "-to={to}", "-calls", calls, "-size=100000"),
        load("grpc-go bidi, 50 at once", "PermissionDenied weft: not-allowed", go / "grpcload", "-to={to}", "-calls", calls, "-kind=bidi"),
        load("grpcio unary, 20 at once", denied, python, HERE / "python/grpcio_load.py", "{to}", calls, "20"),
        load("grpcio bidi, 20 at once", denied, python, HERE / "python/grpcio_load.py", "{to}", calls, "20", "bidi"),
        load("Node http2 unary, 50 at once", "grpc-status 7", "node", HERE / "node/grpc_load.js", "{to}", calls, "50"),
        allowed,
    ]
    by_java = [load("grpc-java unary, 50 at once", denied, java, "load", "{to}", calls, "50"),
               load("grpc-java bidi, 50 at once", denied, java, "load", "{to}", calls, "50", "bidi")]
    server = [[go / "server", "--port=50051"]]
    return [
        Row("refused, HTTP/1.1", [[go / "nethttp", "serve", ":8081"]], 8081, "http1",
            [*both(), client("curl", "bash", HERE / "refused.sh", "http://{to}"), client("Python http.client", python, HERE / "python/refused.py", "{to}")], short=True),
        Row("refused, HTTP/2", [[go / "nethttp", "serve", ":8083"]], 8083, "http2", both("h2"), short=True),
        Row("refused, gRPC", server, 50051, "grpc", grpc, short=True),
        Row("refused, gRPC", server, 50051, "grpc", by_java),
    ]


def run(chosen, options, inner):
    """Results, and complaints, of these rows in places that refuse."""
    places, results, complaints = [], [], []
    if not chosen:
        return results, complaints
    try:
        for name, kind in PLACES.items():
            ports = {row.port: row.declared for row in chosen} if kind == "declared" else {}
            places.append(place.Place(name, inner / name, options.proxy, options.stand_in, ports, "enforce", rules=RULES))
        with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
            for row in chosen:
                for where, tried in [(where, pool.submit(try_row, row, where, options.client)) for where in places]:
                    try:
                        results += [judge(one) for one in tried.result()]
                    except place.Failed as failed:
                        complaints.append(f"{row.name} in {where.name}: {failed}")
        complaints += [said for where in places for said in where.complaints()]
    finally:
        for where in places:
            where.close()
    return results, complaints


def judge(one):
    if not re.search(one.client.must, one.transcript):
        one.difference = f"it does not see what it should ({one.client.must}): {one.transcript[-1500:]}"
    return one


def section(results):
    """What the page says of them."""
    if not results:
        return []
    lines = ["", "## Calls that are refused", "",
             "To servers whose access rules admit one path. Each client of HTTP gets 403 with a body that it can read, for GET, HEAD and",
             "POST, of a byte and of 1 MB that it is still sending, 50 at once; eleven refusals and the allowed call behind them go over one",
             f"connection. Each client of gRPC gets status 7 for all of {CALLS} calls. curl is asked by HTTP/1.1 alone: 7.88 gives an upload over",
             "HTTP/2 up that is answered before it is whole, and a connection that it knew to speak HTTP/2 after one request, directly too.", "", "| calls | client | declared | undeclared |", "|---|---|---|---|"]
    cells = {}
    for one in results:
        cells.setdefault((one.row.name, one.client.name), {})[PLACES[one.place]] = "**not so**" if one.difference else "as said"
    return lines + [f"| {row} | {client} | {got.get('declared', '')} | {got.get('undeclared', '')} |" for (row, client), got in cells.items()]
