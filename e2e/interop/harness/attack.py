"""Hostile neighbours beside an honest load, for as long as one likes.

Two meshes in namespaces, `enforced` and `open` (the default install). Beside client and
server each has a stranger without a proxy, a member whose proxy is told that everything is
opaque, so that what it sends arrives in tunnels, and one that holds certificates and has no
proxy (members.py). The application believes anything and writes down what reached it.

guarded     undeclared; one target with an HTTPRouteGroup of /public and a TCPRoute
declared    the same, declared as HTTP/1.1
bytes       undeclared, a TCPRoute only
"""

import argparse
import concurrent.futures
import json
import pathlib
import re
import shutil
import sys
import tempfile
import time

from . import members, place
from .main import commit

HERE = pathlib.Path(__file__).resolve().parents[1]
PORTS = {"guarded": 9001, "declared": 9002, "bytes": 9003}
LARGE = 9004
RULES = [
    {"name": "both", "ports": [9001], "paths": ["/public"]},
    {"name": "declared", "paths": ["/public"], "ports": [9002]},
    {"name": "bytes", "ports": [9003]},
    {"name": "large", "ports": [9004], "paths": ["/.*"]},
]
WAYS = {"proxy": "client", "direct": "stranger", "tunnel": "tunneller"}
# Of a proxy that takes 64 MiB at most.
MEMORY_MIB = 64
HONEST_RATE = 40
# kind, port, how many: from the stranger, who has no rights at all.
FLOODS = [
    ("silent", "15108", 3000), ("tls", "15108", 1000), ("silent", "15190", 2000), ("bytes", "9002", 3000), ("silent", "9001", 2000),
    ("head", "9002", 1000), ("body", "9002", 1000), ("reader", "9004", 300), ("storm", "9002", 50), ("http", "9002", 50), ("http", "15190", 50),
    ("heads", "9002", 1500), ("long", "9002", 1500), ("down", "9001", 10), ("drip", "9001", 20), ("up", "9001", 60), ("crash", "9004", 100),
]
# The same from the client itself, through its proxy: whoever may call must not stop the pair for its own other calls.
OF_THE_PAIR = [("crash", "9004", 100), ("stuck", "9004", 100), ("reader", "9004", 100), ("up", "9001", 1)]
# Milliseconds that 99 of 100 honest calls take at most beside slowhttptest.
P99_MS = 100
# Connections that slowhttptest is asked for, and how many of them it must have opened, or it was no attack.
SLOW_COUNT, OPENED = 1000, 0.9
SLOW = [("-H",), ("-B",), ("-X", "-w", "100", "-y", "200", "-n", "5", "-z", "32", "-k", "3")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--flood-seconds", type=float, default=20, help="of each flood; 0 leaves them out")
    parser.add_argument("--only", default="", help="the floods alone whose names have this")
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--stand-in", required=True)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--page", help="where the table is written")
    options = parser.parse_args()
    end = time.monotonic() + options.minutes * 60
    place.remove_what_dead_runs_left()
    folder = pathlib.Path(options.folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    inner = pathlib.Path(tempfile.mkdtemp(prefix="weft-attack-"))
    inner.chmod(0o755)
    python = pathlib.Path(options.programs) / "venv/bin/python"
    attacks = []
    try:
        for access in ("enforce", "open"):
            attacks.append(Attack(access, inner / access, options, python))
        rounds = 0
        while rounds == 0 or time.monotonic() < end:
            rounds += 1
            for attack in attacks:
                attack.round(options.flood_seconds, end if rounds > 1 else None)
    finally:
        for attack in attacks:
            attack.where.close()
        for log in inner.glob("*/*.log"):
            shutil.copy(log, folder / f"{log.parent.name}-{log.name}")
        shutil.rmtree(inner, ignore_errors=True)
    text, wrong = report(attacks, rounds, commit(options.proxy))
    if options.page:
        pathlib.Path(options.page).write_text(text)
    print(text)
    sys.exit(1 if wrong else 0)


class Attack:
    def __init__(self, access, folder, options, python):
        self.access, self.python, self.only = access, python, options.only
        self.where = place.Place(access, folder, options.proxy, options.stand_in, {9002: "http1", 9004: "http1"}, access,
                                 rules=RULES if access == "enforce" else (), others={"stranger": None, "node": None, "tunneller": {"sees": "opaque"}, members.POD: None},
                                 memory_mib=MEMORY_MIB, certified=members.CERTIFIED)
        self.log, self.flooded = folder / "came.jsonl", folder / "flooded.jsonl"
        # What slowhttptest opens costs the application that takes it some time, which is no time of the mesh's.
        for name, log, ports in (("sink", self.log, PORTS.values()), ("flooded", self.flooded, [LARGE])):
            self.where.start("server", [python, HERE / "python/sink.py", log, *ports], name)
        place.until(lambda: self.where.listening("server", LARGE), 20, "the application of the attack")
        members.certify(self.where, python)
        self.past, self.forged, self.tried = {}, {}, {}
        self.honest, self.floods, self.wrong = [], [], []
        self.most, self.restarts = {}, 0

    def round(self, seconds, end):
        self.control()
        if not self.only:
            self.first_bytes()
        floods = [(*flood, "stranger") for flood in FLOODS] + [(*flood, "client") for flood in OF_THE_PAIR]
        for kind, port, count, pod in floods if seconds else ():
            if end and time.monotonic() > end:
                return
            host = place.SERVICE_IP if pod == "client" else place.SERVER_IP
            script = [self.python, HERE / "python/flood.py", kind, f"{host}:{port}", count, seconds]
            name = f"{count} x {kind} at {port}" + (" by the client itself" if pod == "client" else "")
            self.beside(name, script, seconds, pod)
        for flood in members.FLOODS if seconds else ():
            if end and time.monotonic() > end:
                return
            members.beside(self, flood, seconds)
        if seconds and shutil.which("slowhttptest"):
            for how in SLOW:
                if end and time.monotonic() > end:
                    return
                url = f"http://{place.SERVER_IP}:{LARGE}/{'large' if how[0] == '-X' else 'public'}"
                script = ["slowhttptest", "-c", SLOW_COUNT, "-r", "300", "-i", "5", "-l", int(seconds), "-p", "5", *how, "-u", url]
                one = self.beside(f"slowhttptest {how[0]}", script, seconds, "stranger", told=lambda said, how=how: self.opened(how[0], said))
                if one and one["p99_ms"] > P99_MS:
                    self.wrong.append(f"{self.access}: beside slowhttptest {how[0]} the p99 was {one['p99_ms']} ms, more than {P99_MS}")

    def opened(self, how, said):
        """What slowhttptest says of its connections when it had opened most, with a complaint where those are too few."""
        counts = slow_counts(said)
        if not counts:
            self.wrong.append(f"{self.access}: slowhttptest {how} said nothing of its connections: {' '.join(said)[-200:]!r}")
            return ""
        held = max(one["connected"] for one in counts)
        best = max(counts, key=lambda one: one["connected"] + one["closed"])
        # Whom nobody lets in counts as closed too, so half of them must have been open at one time.
        if best["connected"] + best["closed"] < SLOW_COUNT * OPENED or held < SLOW_COUNT / 2:
            self.wrong.append(f"{self.access}: slowhttptest {how} held {held} connections at most, and was asked for {SLOW_COUNT}: {best}")
        return f"held {held} at most; {best['connected']} connected, {best['closed']} closed, {best['error']} failed"

    def control(self):
        """What is allowed passes, or nothing below means anything."""
        for pod, port in (("client", 9001), ("client", 9002)):
            got = self.where.call(pod, ["curl", "-s", "-m", "5", f"http://{place.SERVICE_IP}:{port}/public"], 10)[1]
            if got != "ok":
                self.wrong.append(f"{self.access}: an allowed call from {pod} to {port} gave {got!r}")
        for pod in ("client", "tunneller"):
            got = self.where.call(pod, ["bash", "-c", f"exec 3<>/dev/tcp/{place.SERVICE_IP}/9003; printf 'get k\\r\\n' >&3; timeout 5 head -c 8 <&3"], 10)[1]
            if got != "HTTP/1.1":
                self.wrong.append(f"{self.access}: allowed bytes from {pod} to 9003 gave {got!r}")

    def first_bytes(self):
        before = self.log.stat().st_size if self.log.exists() else 0
        with concurrent.futures.ThreadPoolExecutor(len(WAYS)) as pool:
            tries = {}
            for way, pod in WAYS.items():
                host = place.SERVER_IP if way == "direct" else place.SERVICE_IP
                line = [self.python, HERE / "python/first_bytes.py", way, *[f"{host}:{port}" for port in PORTS.values()]]
                tries[way] = pool.submit(self.where.call, pod, line, 240)
            for way, one in tries.items():
                status, out, err = one.result()
                if status != 0:
                    self.wrong.append(f"{self.access}: first bytes, {way}: {status} {err[-300:]}")
                for said in out.splitlines():
                    key = (json.loads(said)["class"], way)
                    self.tried[key] = self.tried.get(key, 0) + 1
        time.sleep(0.5)
        with open(self.log, encoding="utf-8") as log:
            log.seek(before)
            came = [json.loads(line) for line in log]
        names = list_of_classes(self.python)
        not_http = names["not_http"]
        seen_past, seen_forged = set(), set()
        for one in came:
            text = one["came"]
            for way, number in re.findall(r"private-(\w+)-(\d+)\.", text):
                if self.access == "enforce" and one["port"] in (9001, 9002):
                    seen_past.add((names["classes"][int(number)], way, one["port"]))
                if self.access == "enforce" and way == "direct":
                    seen_past.add((names["classes"][int(number)], way, one["port"]))
            for way, number in re.findall(r"spiffe://forged/(\w+)-(\d+)\.", text):
                name = names["classes"][int(number)]
                # Folded into another field it is that field's text, and in a tunnel of bytes nobody's.
                if name not in not_http and name != "folded identity":
                    seen_forged.add((name, way, one["port"]))
        for seen, book in ((seen_past, self.past), (seen_forged, self.forged)):
            for name, way, _ in seen:
                book[name, way] = book.get((name, way), 0) + 1

    def beside(self, name, script, seconds, pod, told=lambda said: said[-1] if said else ""):
        """A flood from `pod` while the client calls on: what became of its calls. `told` makes
        of the lines that the flood printed what the page says of it."""
        if self.only not in name:
            return None
        lasting = seconds + 2
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            honest = pool.submit(self.where.call, "client",
                                 [self.python, HERE / "python/honest.py", f"{place.SERVICE_IP}:9002", lasting, HONEST_RATE], lasting + 40)
            time.sleep(1)
            flood = pool.submit(self.where.call, pod, script, seconds + 60)
            until = time.monotonic() + lasting
            probes = missed = 0
            while time.monotonic() < until:
                self.memory()
                # As the kubelet does, from an address of its own: a kubelet that floods has no claim.
                probes += 1
                if self.where.call("node", ["curl", "-sf", "-m", "3", "-o", "/dev/null", f"http://{place.SERVER_IP}:15190/ready"], 10)[0] != 0:
                    missed += 1
                time.sleep(1)
            status, out, err = honest.result()
            said = flood.result()[1].strip().splitlines()
        if status != 0:
            self.wrong.append(f"{self.access}: the honest caller beside {name}: {err[-300:]}")
            return None
        one = json.loads(out)
        self.floods.append((name, one, probes, missed, told(said)))
        if one["failed"]:
            self.wrong.append(f"{self.access}: beside {name} {one['failed']} of {one['calls']} honest calls failed: {one['reasons']}")
        if missed:
            self.wrong.append(f"{self.access}: beside {name} {missed} of {probes} probes of the proxy missed")
        for ended in self.where.ended():
            # As its container would be; what comes after must be seen as well.
            self.restarts += 1
            self.wrong.append(f"{self.access}: beside {name} the proxy of {ended} ended (at most {self.most.get(ended, 0):.0f} MiB)")
            self.where.stop(self.where.proxies[ended])
            self.where.start_proxy(ended)
            self.where.wait_ready(ended)
        return one

    def memory(self):
        for pod, program in self.where.proxies.items():
            self.most[pod] = max(self.most.get(pod, 0), program.resident_kib() / 1024)


def slow_counts(said):
    """Of each status that slowhttptest prints, how many connections are in which state."""
    counts = []
    for line in said:
        # It colours what it prints, whoever reads it.
        found = re.match(r"(pending|connected|error|closed):\s+(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", line).strip())
        if found and found[1] == "pending":
            counts.append({})
        if found and counts:
            counts[-1][found[1]] = int(found[2])
    return [one for one in counts if len(one) == 4]


def list_of_classes(python):
    text = place.run(str(python), "-c", "import json, first_bytes as f; print(json.dumps({'classes': list(f.CLASSES), 'not_http': list(f.NOT_HTTP)}))",
                     cwd=HERE / "python")
    return json.loads(text)


def report(attacks, rounds, proxy):
    wrong = [said for attack in attacks for said in attack.wrong]
    past = sum(sum(attack.past.values()) for attack in attacks)
    forged = sum(sum(attack.forged.values()) for attack in attacks)
    restarts = sum(attack.restarts for attack in attacks)
    if past:
        wrong.append(f"{past} times something passed a rule")
    if forged:
        wrong.append(f"{forged} times a forged identity reached the application")
    lines = ["# Hostile neighbours", "", "Written by `make attack`; do not edit. Two meshes in network namespaces, one that enforces and one as installed, each",
             "with a neighbour without a proxy, a member whose traffic comes in tunnels, and members that hold certificates of the mesh",
             "and have no proxy that would keep to its rules. `past` counts requests that no rule",
             "admits and that reached the application, `forged` those that reached it with a `weft-client-id` of the sender's choice.",
             "", f"{time.strftime('%Y-%m-%d')}, weft-proxy {proxy}, {rounds} rounds: {past} past a rule, {forged} forged, {restarts} restarts of a proxy, {len(wrong)} complaints.",
             "", "## First bytes", "", "Ways: by the caller's proxy, directly without a proxy, in a tunnel. Sent to a guarded port that nobody declared, a guarded",
             "one declared as HTTP/1.1, and one with a TCPRoute only.", "", "| class | sent | past: proxy, direct, tunnel | forged: proxy, direct, tunnel |", "|---|---|---|---|"]
    for name in dict.fromkeys(name for attack in attacks for name, _ in attack.tried):
        sent = sum(count for attack in attacks for (one, _), count in attack.tried.items() if one == name)
        cells = [", ".join(str(sum(getattr(attack, book).get((name, way), 0) for attack in attacks)) for way in WAYS) for book in ("past", "forged")]
        lines.append(f"| {name} | {sent} | {cells[0]} | {cells[1]} |")
    lines += ["", "## Floods", "", "From the neighbour without a proxy, by the client itself through its proxy, or by members with a certificate and no",
              "proxy, while the client makes 40 calls a second and a probe comes each second. Of a member's flood the server's proxy",
              "must have accepted as many connections as it says to have held, and it must have been answered as whoever does that is:",
              "what was not seen was no attack, and is a complaint.", "",
              "| mesh | flood | honest calls | failed | p50 ms | p99 ms | probes missed | the flood says |", "|---|---|---|---|---|---|---|---|"]
    for attack in attacks:
        for name, one, probes, missed, said in attack.floods:
            lines.append(f"| {attack.access} | {name} | {one['calls']} | {one['failed']} | {one['p50_ms']} | {one['p99_ms']} | {missed} of {probes} | {said} |")
    lines += ["", "## Memory", "", "| mesh | proxy of | most, MiB |", "|---|---|---|"]
    for attack in attacks:
        for pod, most in attack.most.items():
            lines.append(f"| {attack.access} | {pod} | {most:.0f} |")
            if most > MEMORY_MIB:
                wrong.append(f"{attack.access}: the proxy of {pod} took {most:.0f} MiB, more than {MEMORY_MIB}")
    lines += ["", "## Complaints", "", *([f"- {said}" for said in wrong] or ["None."])]
    return "\n".join(lines) + "\n", wrong


if __name__ == "__main__":
    main()
