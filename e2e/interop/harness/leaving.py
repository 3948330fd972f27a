"""Servers that leave while they are called, and their replacements: a rolling restart under
fifty calls at once, connections that are mostly idle, and calls that must not be sent
twice. The results of clients directly and through the mesh stand side by side.

What must hold: no truncated response looks complete; and where the next server takes
connections before the last one leaves, no call that is safe to send twice fails through the
mesh while none fails directly. The page reports POSTs and servers that leave a gap.
"""

import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import signal
import threading
import time
from collections.abc import Callable

from . import place, prepare
from .row import absent, fill

HERE = pathlib.Path(__file__).resolve().parents[1]
PLACES = ("direct", "declared")
# Seconds of a trial, and when the server leaves.
SECONDS, LEAVES = 8, (2, 4, 6)
# Until a server that was started beside another one takes connections, and until one must end after SIGTERM.
BESIDE, ENDS = 1.5, 15
DRIP = ("/drip", "45")
RELOADED, REPLACED, GAP = "reloaded: the next one takes over its socket", "replaced by one that listens beside it", "ended, and started again after that"


@dataclasses.dataclass
class Trial:
    name: str
    line: list
    port: int
    declared: str
    how: str
    client: list
    prepare: Callable = None


def trials(programs):
    """All of them, and those that cannot be tried with the reason."""
    go, python = programs / "go", programs / "venv/bin/python"

    def http(path, *more):
        return [go / "nethttp", "under", "http://{to}", *path, str(SECONDS), *more]

    grpc = [go / "grpcload", "-to={to}", f"-lasting={SECONDS}s", "-kind=bidi"]
    slow = ("/slow/100000", "100000")
    nginx = ["nginx", "-c", "PLACE/nginx.conf", "-p", "PLACE"]
    gunicorn = [programs / "venv/bin/gunicorn", "--chdir", HERE / "python", "-b", "0.0.0.0:8102", "--threads", "80", "--keep-alive", "5", "app_wsgi:app"]
    every = [
        Trial("nginx", nginx, 8090, "http1", RELOADED, http(slow), prepare.nginx_with_master),
        Trial("nginx h2c", nginx, 8091, "http2", RELOADED, http(slow, "h2"), prepare.nginx_with_master),
        Trial("gunicorn", gunicorn, 8102, "http1", RELOADED, http(DRIP)),
        Trial("Go net/http", [go / "nethttp", "roll", ":8081"], 8081, "http1", RELOADED, http(DRIP)),
        Trial("Go net/http h2c", [go / "nethttp", "roll", ":8083"], 8083, "http2", RELOADED, http(DRIP, "h2")),
        Trial("grpcio", [python, HERE / "python/grpcio_server.py", "50061"], 50061, "grpc", REPLACED, grpc),
        Trial("Go net/http", [go / "nethttp", "serve", ":8081"], 8081, "http1", GAP, http(DRIP)),
        Trial("Go net/http h2c", [go / "nethttp", "serve", ":8083"], 8083, "http2", GAP, http(DRIP, "h2")),
        Trial("Node http", ["node", HERE / "node/server.js", "8082"], 8082, "http1", GAP, http(DRIP)),
        Trial("Node http2", ["node", HERE / "node/server.js", "8084", "h2"], 8084, "http2", GAP, http(DRIP, "h2")),
        Trial("grpc-java", [programs / "java/grpc-java", "serve", "50071"], 50071, "grpc", GAP, grpc),
    ]
    lacks = {at: names for at, one in enumerate(every) if (names := absent([one.line, one.client[:1]]))}
    return ([one for at, one in enumerate(every) if at not in lacks],
            [f"leaving, {every[at].name}: no program {', '.join(names)} on this machine" for at, names in lacks.items()])


def run(chosen, where):
    """Each trial in the places with these names, side by side: what became of the calls, and complaints."""
    tried, complaints = [], []
    with concurrent.futures.ThreadPoolExecutor(len(PLACES)) as pool:
        for trial in chosen:
            running = {one.name: pool.submit(try_one, trial, one) for one in where if one.name in PLACES}
            try:
                became = {name: one.result() for name, one in running.items()}
            except (place.Failed, ValueError) as failed:
                complaints.append(f"leaving, {trial.name}: {failed}")
                continue
            tried.append((trial, became))
            wrong = judge(trial, became)
            complaints += [f"leaving, {trial.name}, {trial.how}: {said}" for said in wrong]
            print(f"{'DIFFERS' if wrong else 'as it should':17} {trial.name}, {trial.how}: " + "; ".join(f"{name}: {described(one)}" for name, one in became.items()), flush=True)
    return tried, complaints


def try_one(trial, where):
    if trial.prepare:
        trial.prepare(where)
    line = [fill(one).replace("PLACE", str(where.folder)) for one in trial.line]
    servers = [where.start("server", line, "server-0")]
    asked, client = [fill(one, trial.port) for one in trial.client], {}
    calling = threading.Thread(target=lambda: client.update(zip(("status", "out", "err"), where.call("client", asked, SECONDS + 60), strict=True)))
    try:
        place.until(lambda: where.listening("server", trial.port), 40, f"server of {trial.name} in {where.folder}")
        started = time.monotonic()
        calling.start()
        for when in LEAVES:
            time.sleep(max(0, started + when - time.monotonic()))
            servers.append(leave(trial, where, line, servers[-1]))
        calling.join()
    finally:
        for program in [one for one in where.programs if one.name.startswith("server-")]:
            where.stop(program)
        if calling.is_alive():
            calling.join()
    if client["status"] != 0:
        raise place.Failed(f"its client in {where.name}: {client['status']} {client['err'][-300:]}")
    return counted(client["out"])


def leave(trial, where, line, server):
    """The server leaves, and the one that is there afterwards."""
    if not server.alive():
        raise place.Failed(f"the server in {where.name} ended by itself, see {server.log}")
    if trial.how == RELOADED:
        os.kill(server.pid, signal.SIGHUP)
        return server
    if trial.how == REPLACED:
        following = where.start("server", line, "server-1")
        time.sleep(BESIDE)
    os.kill(server.pid, signal.SIGTERM)
    place.until(lambda: not server.alive(), ENDS, f"end of the server in {where.name}")
    return following if trial.how == REPLACED else where.start("server", line, "server-1")


def counted(out):
    """By kind of call: how many were whole, how many failed and how, and how many ended well and were not whole."""
    if load := re.search(r"^calls (\d+) failed (\d+)$", out, re.M):
        made, lost = map(int, load.groups())
        failed = collections.Counter()
        for count, code, why in re.findall(r"^  (\d+) x (\w+)(.*)$", out, re.M):
            # What the mesh says of itself; other words name addresses.
            mesh = re.search(r"weft: [\w-]+", why)
            failed[f"{code} {mesh[0]}" if mesh else code] += int(count)
        return {"streams": {"whole": made - lost, "failed": failed, "short": 0}}
    return json.loads(out)


def judge(trial, became):
    wrong = []
    for name, kinds in became.items():
        wrong += [f"{one['short']} answers to {kind} were not whole and looked so, {name}" for kind, one in kinds.items() if one["short"]]
        wrong += [f"no {kind} was answered, {name}" for kind, one in kinds.items() if not one["whole"]]
    if trial.how != GAP:
        for kind, one in became["declared"].items():
            if kind != "POST" and one["failed"] and not became["direct"][kind]["failed"]:
                wrong.append(f"{kind} failed through the mesh, {one['failed']}, and not directly")
    return wrong


def described(kinds):
    """In words, for the page."""
    said = []
    for kind, one in kinds.items():
        failed = ", ".join(f"{count} x {reason}" for reason, count in sorted(one["failed"].items()))
        said.append(f"{kind}: {one['whole']} whole, {failed or '0 failed'}")
    return "; ".join(said)


def section(tried):
    """What the page says of them."""
    if not tried:
        return []
    lines = ["", "## Servers that leave", "",
             f"A server leaves {len(LEAVES)} times in {SECONDS} s, while it is called by 50 clients that are in the middle of answers nearly always (answers of",
             "200 ms; of gRPC, streams), by 10 on connections that are mostly idle, and by 5 that POST. An answer that is broken off never",
             "looks whole. Where the next server takes connections before the last one leaves, no GET and no stream fails through the mesh",
             "unless some fail directly. A POST is never sent twice; the results of those stand beside. Numbers in front of `x` are calls that",
             "failed, with what their caller received.", "",
             "| server | is | directly | through the mesh |", "|---|---|---|---|"]
    return lines + [f"| {trial.name} | {trial.how} | {described(became['direct'])} | {described(became['declared'])} |" for trial, became in tried]
