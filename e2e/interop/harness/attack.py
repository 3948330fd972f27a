"""Hostile neighbours beside an honest load, for any duration.

Three meshes in namespaces (meshes.py). Beside client and server each has an unauthenticated
peer without a proxy, a member whose proxy is configured with opaque ports only, so that its
bytes arrive in tunnels, and one with certificates and no proxy (members.py). The application
trusts every header and records what reached it.

guarded     undeclared; one target with an HTTPRouteGroup of /public and a TCPRoute
declared    the same, declared as HTTP/1.1
bytes       undeclared, a TCPRoute only

In each round every class of first bytes goes to every mesh (first_bytes.py), and every flood
to those in which its outcome may differ. A flood at what is alike in all of them goes to one
mesh in a round, to the next one in the next round. A run that is too short for a round is a trial:
each flood lasts as long as it takes to see that it works, and goes to one mesh.
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

from . import attack_page, first_bytes, members, place
from .meshes import MESHES

HERE = pathlib.Path(__file__).resolve().parents[1]
LARGE = 9004
# Of a proxy that takes 64 MiB at most.
MEMORY_MIB = 64
HONEST_RATE = 40
# Longer than any timeout of a proxy that a flood may run into, of which the longest is the 15 s
# for an upload that no peer reads; and three meshes within half an hour.
FLOOD_SECONDS = 18
# Minutes below which a run is a trial, and seconds of each flood then: as long as a thousand connections take.
TRIAL_BELOW, TRIAL_SECONDS = 20, 6
# Seconds of the honest load around a flood.
AROUND = 2
# Takes redirected connections, and rejects direct ones.
DIRECT = "15106"
# Probes and scrapes come here, from any peer.
ADMIN = "15190"
# kind, port, how many: from the unauthenticated peer, which has no rights at all.
FLOODS = [
    ("silent", "15108", 3000), ("tls", "15108", 1000), ("silent", ADMIN, 2000), ("bytes", "9002", 3000), ("silent", "9001", 2000),
    ("head", "9002", 1000), ("body", "9002", 1000), ("reader", "9004", 300), ("storm", "9002", 50), ("http", "9002", 50), ("http", ADMIN, 50),
    ("head", ADMIN, 1000), ("partial", ADMIN, 1000), ("slow", ADMIN, 300),
    ("heads", "9002", 1500), ("long", "9002", 1500), ("down", "9001", 10), ("drip", "9001", 20), ("up", "9001", 60), ("crash", "9004", 100),
    ("silent", DIRECT, 3000), ("storm", DIRECT, 50),
]
# Listeners that ask neither rules nor modes before a caller has proven who it is.
OF_THE_PROXY = {DIRECT, "15108", ADMIN}
# What the server's proxy counts of the connections that it ends there.
COUNTED = {DIRECT: 'weft_limit_reached_total{limit="direct-call"', ADMIN: "weft_admin_connections_closed_total"}
# Kinds whose connections hold a place and give nothing for it: of an address that has far more than its share at the admin
# port most are closed.
HOLDING = {"silent", "head", "partial", "slow"}
# Seconds in which a probe is answered, and probe and scrape while the admin port itself is flooded.
PROBE_WITHIN, ADMIN_WITHIN = 3, 1
# The same from the client itself, through its proxy: an allowed caller must not stop the pair for its own other calls.
OF_THE_PAIR = [("crash", "9004", 100), ("stuck", "9004", 100), ("reader", "9004", 100), ("up", "9001", 1)]
# Milliseconds that 99 of 100 honest calls take at most beside slowhttptest, and beside floods of HTTP/2 frames.
P99_MS = 100
# Connections that slowhttptest is set to open, and how many of them it must have opened, or it was no attack.
SLOW_COUNT, OPENED = 1000, 0.9
SLOW = [("-H",), ("-B",), ("-X", "-w", "100", "-y", "200", "-n", "5", "-z", "32", "-k", "3")]


def options_of_run():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60, help=f"with less than {TRIAL_BELOW} it is a trial, which writes no page")
    parser.add_argument("--flood-seconds", type=float, help=f"of each flood: {FLOOD_SECONDS}, in a trial {TRIAL_SECONDS}; 0 leaves them out")
    parser.add_argument("--only", default="", help="the floods alone whose names have this")
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--previous", default="", help="an older proxy, which lets through what this one must not")
    parser.add_argument("--previous-commit", default="", help="what it was built of, for the page")
    parser.add_argument("--stand-in", required=True)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--page", help="where the table is written")
    options = parser.parse_args()
    options.trial = options.minutes < TRIAL_BELOW
    if options.flood_seconds is None:
        options.flood_seconds = TRIAL_SECONDS if options.trial else FLOOD_SECONDS
    return options


def main():
    options = options_of_run()
    place.remove_what_dead_runs_left()
    folder = pathlib.Path(options.folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    inner = pathlib.Path(tempfile.mkdtemp(prefix="weft-attack-"))
    inner.chmod(0o755)
    python = pathlib.Path(options.programs) / "venv/bin/python"
    attacks, older, wrong = [], [], []
    if options.flood_seconds and options.only in "slowhttptest" and not shutil.which("slowhttptest"):
        wrong.append("slowhttptest is not here, so its three floods were not tried; install the package of this name")
    try:
        if options.previous and not options.only:
            older, lacking = first_bytes.against_older(options.previous, options, inner, python)
            wrong += lacking
        began = time.monotonic()
        for mesh in MESHES:
            attacks.append(Attack(mesh, inner / mesh.name, options, python))
        rounds = run_rounds(attacks, options, began + options.minutes * 60)
        took = time.monotonic() - began
        for attack in attacks:
            attack.wrong += attack.where.complaints()
    finally:
        for attack in attacks:
            attack.where.close()
        for log in inner.glob("*/*.log"):
            shutil.copy(log, folder / f"{log.parent.name}-{log.name}")
        shutil.rmtree(inner, ignore_errors=True)
    text, wrong = attack_page.write(attacks, rounds, took, MEMORY_MIB, options, older, wrong)
    # A trial is no evidence, nor is a part.
    page = folder / "attacks.md" if options.trial or options.only or not options.page else pathlib.Path(options.page)
    page.write_text(text)
    print(text)
    print(f"written to {page}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


def run_rounds(attacks, options, end):
    """At least one whole round, and further ones until `end`; how many there were."""
    if options.trial:
        for at, attack in enumerate(attacks):
            attack.round(options.flood_seconds, None, shared=True, part=slice(at, None, len(attacks)))
        return 1
    rounds = 0
    while rounds == 0 or time.monotonic() < end:
        turn = rounds % len(attacks)
        rounds += 1
        for at, attack in enumerate(attacks):
            attack.round(options.flood_seconds, end if rounds > 1 else None, shared=at == turn)
    return rounds


class Attack:
    def __init__(self, mesh, folder, options, python):
        self.mesh, self.python, self.only = mesh, python, options.only
        others = {**first_bytes.OTHERS, "node": None, members.POD: None}
        self.where = place.Place(mesh.name, folder, options.proxy, options.stand_in, first_bytes.DECLARED, mesh.access, mesh.mtls,
                                 rules=first_bytes.RULES if mesh.has_rules() else (), others=others,
                                 memory_mib=MEMORY_MIB, certified=members.CERTIFIED)
        self.log, self.flooded = folder / "came.jsonl", folder / "flooded.jsonl"
        self.floods, self.wrong, self.most, self.restarts = [], [], {}, 0
        try:
            # What slowhttptest opens costs the application that takes it some time, which is no time of the mesh's.
            first_bytes.serve(self.where, python, "sink", self.log, first_bytes.PORTS.values())
            first_bytes.serve(self.where, python, "flooded", self.flooded, [LARGE])
            members.certify(self.where, python)
            self.bytes = first_bytes.FirstBytes(mesh, self.where, self.log, python)
        except place.Failed:
            self.where.close()
            raise
        # Reported together.
        self.bytes.wrong = self.wrong

    def complain(self, said):
        self.wrong.append(f"{self.mesh.name}: {said}")

    def round(self, seconds, end, shared, part=slice(None)):
        """`shared`: with the floods at what is alike in all meshes. `part`: which of all floods."""
        self.bytes.allowed()
        if not self.only:
            self.bytes.send()
        for flood in list(self.floods_of(shared, seconds))[part] if seconds else ():
            if end and time.monotonic() > end:
                return
            flood()

    def floods_of(self, shared, seconds):
        """What is to be called for each flood of a round."""
        from_outside = [(*flood, "stranger") for flood in FLOODS if shared or flood[1] not in OF_THE_PROXY]
        of_the_pair = [(*flood, "client") for flood in OF_THE_PAIR if shared]
        for flood in from_outside + of_the_pair:
            yield lambda flood=flood: self.flood(flood, seconds)
        for flood in members.FLOODS:
            if shared or members.own(flood, self.mesh):
                yield lambda flood=flood: members.beside(self, flood, seconds)
        for how in SLOW if shutil.which("slowhttptest") else ():
            yield lambda how=how: self.slow(how, seconds)

    def flood(self, flood, seconds):
        kind, port, count, pod = flood
        host = place.SERVICE_IP if pod == "client" else place.SERVER_IP
        script = [self.python, HERE / "python/flood.py", kind, f"{host}:{port}", count, seconds]
        name = f"{count} x {kind} at {port}" + (" by the client itself" if pod == "client" else "")
        before = self.ended_at(port)

        def describe(said):
            last = said[-1] if said else ""
            if port not in COUNTED:
                return last
            ended = self.ended_at(port) - before
            least = fewest_ended(kind, port, count)
            if ended < least:
                self.complain(f"{name}: the proxy counted {ended} connections that it turned away or closed, fewer than {least}")
            return f"{last}; the proxy {'turned' if port == DIRECT else 'closed'} {ended}{' away' if port == DIRECT else ''}"

        self.beside(name, script, seconds, pod, describe, port == ADMIN)

    def ended_at(self, port):
        """Connections to this port that the server's proxy has rejected or closed in favour of others."""
        if port not in COUNTED:
            return 0
        lines = [line for line in self.where.metrics("server").splitlines() if line.startswith(COUNTED[port])]
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)

    def slow(self, how, seconds):
        if self.only not in f"slowhttptest {how[0]}":
            return
        url = f"http://{place.SERVER_IP}:{LARGE}/{'large' if how[0] == '-X' else 'public'}"
        script = ["slowhttptest", "-c", SLOW_COUNT, "-r", "300", "-i", "5", "-l", int(seconds), "-p", "5", *how, "-u", url]
        before = members.accepted(self.where, ())
        one = self.beside(f"slowhttptest {how[0]}", script, seconds, "stranger",
                          describe=lambda said: self.opened(how[0], said, members.accepted(self.where, ()) - before))
        if one:
            self.hold_to_p99(f"slowhttptest {how[0]}", one)

    def hold_to_p99(self, name, one):
        if one["p99_ms"] > P99_MS:
            self.complain(f"beside {name} the p99 was {one['p99_ms']} ms, more than {P99_MS}")

    def opened(self, how, said, accepted):
        """What slowhttptest says of its connections when it had opened most, with a complaint where those are too few."""
        counts = slow_counts(said)
        if not counts:
            self.complain(f"slowhttptest {how} said nothing of its connections: {' '.join(said)[-200:]!r}")
            return ""
        held = max(one["connected"] for one in counts)
        best = max(counts, key=lambda one: one["connected"] + one["closed"])
        # It prints a status every five seconds: by the next one all whose heads were refused are
        # closed, and it has ended.
        ended = how == "-B" and not self.mesh.lets_strangers_in() and any("No open connections left" in line for line in said)
        # Where nothing listens they count as closed too, so the proxy must have seen them.
        if accepted < SLOW_COUNT * OPENED or (not ended and best["connected"] + best["closed"] < SLOW_COUNT * OPENED):
            self.complain(f"slowhttptest {how} was asked for {SLOW_COUNT} connections, the proxy accepted {accepted}, and it said: {best}")
        # A connection whose request is refused at its head is closed; an endless head and an
        # unread response are held in every mesh.
        if held < SLOW_COUNT / 2 and (how != "-B" or self.mesh.lets_strangers_in()):
            self.complain(f"slowhttptest {how} held {held} connections at most, and was asked for {SLOW_COUNT}: {best}")
        if ended:
            return f"all ended by the other side before it looked again; the proxy accepted {accepted}"
        return f"held {held} at most; {best['connected']} connected, {best['closed']} closed, {best['error']} failed; the proxy accepted {accepted}"

    def beside(self, name, script, seconds, pod, describe=lambda said: said[-1] if said else "", at_admin=False):
        """A flood from `pod` while the client calls on: what became of its calls. `describe` makes
        of the lines that the flood printed what the page says of it. `at_admin`: probes are held
        to a second then, and metrics are scraped beside them."""
        if self.only not in name:
            return None
        lasting = seconds + AROUND
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            until = time.monotonic() + lasting
            honest = pool.submit(self.where.call, "client",
                                 [self.python, HERE / "python/honest.py", f"{place.SERVICE_IP}:9002", lasting, HONEST_RATE], lasting + 40)
            time.sleep(AROUND / 2)
            flood = pool.submit(self.where.call, pod, script, seconds + 60)
            probes = missed = scrapes = unscraped = 0
            while time.monotonic() < until:
                self.memory()
                probes += 1
                missed += not self.answers("ready", ADMIN_WITHIN if at_admin else PROBE_WITHIN)
                if at_admin:
                    scrapes += 1
                    unscraped += not self.answers("metrics", ADMIN_WITHIN)
                time.sleep(1)
            status, out, err = honest.result()
            said = flood.result()[1].strip().splitlines()
        if status != 0:
            self.complain(f"the honest caller beside {name}: {err[-300:]}")
            return None
        one = json.loads(out)
        scraped = f"; {unscraped} of {scrapes} scrapes missed" if at_admin else ""
        self.floods.append((name, one, probes, missed, describe(said) + scraped))
        if one["failed"]:
            self.complain(f"beside {name} {one['failed']} of {one['calls']} honest calls failed: {one['reasons']}")
        if missed:
            self.complain(f"beside {name} {missed} of {probes} probes of the proxy missed")
        if unscraped or (at_admin and not scrapes):
            self.complain(f"beside {name} {unscraped} of {scrapes} scrapes of the proxy missed")
        self.restart_what_ended(name)
        return one

    def answers(self, page, within):
        """Whether the server's proxy gives this page whole and in time, as to a kubelet or a scraper: to an address of
        its own, since one that floods has no claim."""
        line = ["curl", "-sf", "-m", within, f"http://{place.SERVER_IP}:{ADMIN}/{page}"]
        status, out, _ = self.where.call("node", line, 10)
        return status == 0 and (page != "metrics" or out.endswith("# EOF\n"))

    def restart_what_ended(self, name):
        """As its container would be; what comes after must be seen as well."""
        for ended in self.where.ended():
            self.restarts += 1
            self.complain(f"beside {name} the proxy of {ended} ended (at most {self.most.get(ended, 0):.0f} MiB)")
            self.where.stop(self.where.proxies[ended])
            self.where.start_proxy(ended)
            self.where.wait_ready(ended)

    def memory(self):
        for pod, program in self.where.proxies.items():
            self.most[pod] = max(self.most.get(pod, 0), program.resident_kib() / 1024)


def fewest_ended(kind, port, count):
    """Of so many connections, how many at least a proxy must have counted as ended, or it was no attack."""
    if port == DIRECT:
        return count
    return count // 2 if kind in HOLDING else 0


def slow_counts(said):
    """Of each status that slowhttptest prints, how many connections are in which state."""
    counts = []
    for line in said:
        # It colours its output, also into a pipe.
        found = re.match(r"(pending|connected|error|closed):\s+(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", line).strip())
        if found and found[1] == "pending":
            counts.append({})
        if found and counts:
            counts[-1][found[1]] = int(found[2])
    return [one for one in counts if len(one) == 4]


if __name__ == "__main__":
    main()
