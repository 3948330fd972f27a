"""Floods against controller and injector from a pod without rights, in the cluster of
the demo: `python -m harness.control_plane --seconds 20`.

The flood starts in the network namespace of a pod without a proxy and without rights.
Beside each the control plane still works: pods are injected, specs are validated, a
changed TrafficSplit reaches its proxies, and traffic metrics can be read.

A port that speaks TLS is asked which HTTP it negotiates, and is flooded within TLS by that as
well: in clear most floods end in its handshake. No flood shows a certificate.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import time

from . import place

HERE = pathlib.Path(__file__).resolve().parents[1]
MESH, SHOP, STRANGER = "weft-system", "shop", "attack-stranger"
# kind, how many; each goes to every port of every pod of the control plane in turn.
FLOODS = [("silent", 3000), ("tls", 1000), ("bytes", 3000), ("head", 1000), ("body", 1000), ("storm", 50), ("http", 50),
          ("slow", 300), ("large", 50), ("review", 30)]
# The same within TLS, by the name under which a port negotiates what is spoken there.
WITHIN_TLS = {
    "http/1.1": [("head", 500), ("body", 500), ("http", 50)],
    "h2": [("head2", 500), ("body2", 500), ("http2", 50), ("control", 10), ("resets", 10)],
}
# The paths at the ports of each part on which an unauthenticated peer costs most.
PATHS = {"controller": "/weft.v1.Control/Certify", "injector": "/mutate"}
ELSEWHERE = "/apis/metrics.smi-spec.io/v1alpha2"
# What waits longer than this has failed.
WITHIN = {"inject": 10, "judge": 10, "change": 5, "metrics": 10}
# As the chart limits them.
LIMIT_MIB = {"weft-controller": 512, "weft-injector": 128}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20, help="of each flood")
    parser.add_argument("--minutes", type=float, default=60, help="no flood begins after this")
    parser.add_argument("--only", default="", help="the floods alone whose names have this; writes no page")
    parser.add_argument("--kubectl", required=True)
    parser.add_argument("--page", help="where the table is written")
    options = parser.parse_args()
    cluster = Cluster(options.kubectl)
    end = time.monotonic() + options.minutes * 60
    rows, wrong = [], []
    calm = cluster.beside(options.seconds)
    rows.append(("nothing (calm)", "", calm, ""))
    wrong += complaints("calm", calm)
    before = cluster.restarts()
    spoken = {}
    for part, address, name in cluster.targets():
        spoken[part, name] = negotiated(address)
        for flood, script in floods_at(part, address, spoken[part, name], options.seconds):
            what = f"{flood} at {part} {name}"
            if options.only not in what:
                continue
            if time.monotonic() > end:
                wrong.append(f"out of time before {what}")
                continue
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                flooding = pool.submit(cluster.flood, script, options.seconds)
                seen = cluster.beside(options.seconds)
                said = flooding.result()
            print(f"{what}: {said}", file=sys.stderr, flush=True)
            rows.append((flood, f"{part} {name}", seen, said))
            wrong += complaints(what, seen)
            if said.startswith("0 held"):
                wrong.append(f"{what} held no connection, so it was no attack: {said}")
    for part, protocol in (("controller", "h2"), ("injector", "h2"), ("injector", "http/1.1")):
        if not any(protocol in one for (of, _), one in spoken.items() if of == part):
            wrong.append(f"no port of the {part} spoke {protocol} within TLS, so none was flooded by it: {spoken}")
    after = cluster.restarts()
    wrong += [f"{pod} was restarted {after.get(pod, 'away')} times, {count} before" for pod, count in before.items() if after.get(pod) != count]
    for program, most in cluster.most.items():
        if most > LIMIT_MIB[program]:
            wrong.append(f"{program} took {most:.0f} MiB, more than {LIMIT_MIB[program]}")
    # A control: what honest work needs must have been seen at all.
    if not all(calm[what]["done"] for what in WITHIN):
        wrong.append(f"without a flood not everything was done: {calm}")
    text = page(rows, wrong, cluster.most)
    if options.page and not options.only:
        pathlib.Path(options.page).write_text(text)
    print(text)
    sys.exit(1 if wrong else 0)


def negotiated(address):
    """What a port agrees on within TLS of what WITHIN_TLS has; nothing where it speaks none."""
    host, port = address.rsplit(":", 1)
    found = []
    for protocol in WITHIN_TLS:
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        anybody.set_alpn_protocols([protocol])
        try:
            with socket.create_connection((host, int(port)), 5) as raw, anybody.wrap_socket(raw, server_hostname="app") as within:
                if within.selected_alpn_protocol() == protocol:
                    found.append(protocol)
        except OSError:
            continue
    return found


def floods_at(part, address, protocols, seconds):
    """The name of each flood that a port gets, and its command line."""
    for kind, count in FLOODS:
        yield f"{count} x {kind}", ["flood.py", kind, address, count, seconds]
    for protocol in protocols:
        for kind, count in WITHIN_TLS[protocol]:
            yield f"{count} x {kind} within TLS", ["flood_tls.py", kind, address, count, seconds, PATHS.get(part, ELSEWHERE)]


def complaints(where, seen):
    return [f"beside {where} {one['failed']} of {one['done'] + one['failed']} times {what} failed: {one['why']}"
            for what, one in seen.items() if one["failed"]]


class Cluster:
    def __init__(self, kubectl):
        self.kubectl, self.most, self.weight = kubectl, {}, 0
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STRANGER}})
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger", "namespace": STRANGER},
                    "spec": {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1,
                             "containers": [{"name": "app", "image": self.image()}]}})
        self.run("wait", "-n", STRANGER, "--for=condition=Ready", "pod/stranger", "--timeout=60s", limit=90)
        ip = self.get("pod", "stranger", STRANGER)["status"]["podIP"]
        self.namespace = namespace_with(ip)

    def run(self, *line, given=None, limit=30, check=True):
        done = subprocess.run([self.kubectl, *line], input=given, capture_output=True, text=True, timeout=limit)
        if check and done.returncode != 0:
            raise place.Failed(f"kubectl {' '.join(line)}: {done.stderr.strip()}")
        return done.stdout if check else done

    def get(self, kind, name, namespace):
        return json.loads(self.run("get", kind, name, "-n", namespace, "-o", "json"))

    def apply(self, thing):
        self.run("apply", "-f", "-", given=json.dumps(thing))

    def image(self):
        pods = json.loads(self.run("get", "pods", "-n", SHOP, "-l", "app=web", "-o", "json"))["items"]
        return next(one["image"] for one in pods[0]["spec"]["containers"] if not one["name"].startswith("weft"))

    def targets(self):
        """Each port that any peer may connect to, once: what listens on one pod listens on all."""
        seen = {}
        for pod in json.loads(self.run("get", "pods", "-n", MESH, "-o", "json"))["items"]:
            part, ip = pod["metadata"]["labels"].get("app.kubernetes.io/component", pod["metadata"]["name"].split("-")[1]), pod["status"]["podIP"]
            for container in pod["spec"]["containers"]:
                for port in container.get("ports", []):
                    seen.setdefault((part, port["name"]), f"{ip}:{port['containerPort']}")
        slices = json.loads(self.run("get", "endpointslices", "-n", MESH, "-o", "json"))["items"]
        ports = set(seen.values())
        for one in slices:
            for port in one.get("ports") or []:
                address = f"{one['endpoints'][0]['addresses'][0]}:{port['port']}"
                if not any(known.endswith(f":{port['port']}") for known in ports):
                    seen.setdefault((one["metadata"]["labels"]["kubernetes.io/service-name"], port["name"] or str(port["port"])), address)
        for (part, name), address in seen.items():
            # A control: a flood of a closed port would prove nothing.
            with socket.create_connection(address.split(":"), 5):
                yield part, address, name

    def flood(self, script, seconds):
        name, *arguments = script
        line = ["ip", "netns", "exec", self.namespace, "setpriv", "--pdeathsig", "KILL", "--", sys.executable,
                str(HERE / "python" / name), *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=seconds + 60, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise place.Failed(f"the flood {' '.join(map(str, script))} did not run: {done.stderr[-300:]}")
        return (done.stdout.strip().splitlines() or [""])[-1]

    def restarts(self):
        pods = json.loads(self.run("get", "pods", "-n", MESH, "-o", "json"))["items"]
        return {pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"]["containerStatuses"]) for pod in pods}

    def beside(self, seconds):
        """What the control plane is for, once a second for so long."""
        until = time.monotonic() + seconds
        seen = {what: {"done": 0, "failed": 0, "slowest": 0.0, "why": ""} for what in WITHIN}
        while time.monotonic() < until:
            for what in WITHIN:
                began = time.monotonic()
                try:
                    getattr(self, what)()
                    took = time.monotonic() - began
                    if took > WITHIN[what]:
                        raise place.Failed(f"took {took:.1f} s")
                    seen[what]["done"] += 1
                except (place.Failed, subprocess.TimeoutExpired, KeyError, StopIteration) as error:
                    seen[what]["failed"] += 1
                    seen[what]["why"] = str(error)[-200:]
                seen[what]["slowest"] = max(seen[what]["slowest"], time.monotonic() - began)
            self.memory()
            time.sleep(0.5)
        return seen

    def inject(self):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "probe-", "namespace": SHOP},
               "spec": {"serviceAccountName": "web", "containers": [{"name": "app", "image": "none"}]}}
        made = json.loads(self.run("create", "--dry-run=server", "-o", "json", "-f", "-", given=json.dumps(pod)))
        names = [one["name"] for kind in ("initContainers", "containers") for one in made["spec"].get(kind, [])]
        if not any(name.startswith("weft") for name in names):
            raise place.Failed(f"the pod came out with {names}")

    def judge(self):
        split = {"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit", "metadata": {"name": "judged", "namespace": SHOP},
                 "spec": {"service": "catalog", "backends": []}}
        done = self.run("create", "--dry-run=server", "-f", "-", given=json.dumps(split), check=False)
        if done.returncode == 0 or "backends" not in done.stderr:
            raise place.Failed(f"a split without backends: {done.stdout}{done.stderr}")

    def change(self):
        self.weight = self.weight % 50 + 1
        spec = {"spec": {"backends": [{"service": "catalog-v1", "weight": 100 - self.weight}, {"service": "catalog-v2", "weight": self.weight}]}}
        self.run("patch", "trafficsplit", "catalog", "-n", SHOP, "--type=merge", "-p", json.dumps(spec))
        until = time.monotonic() + WITHIN["change"]
        while time.monotonic() < until:
            split = self.get("trafficsplit", "catalog", SHOP)
            programmed = [one for one in split.get("status", {}).get("conditions", []) if one["type"] == "Programmed"]
            if programmed and programmed[0]["status"] == "True" and programmed[0]["observedGeneration"] == split["metadata"]["generation"]:
                return
            time.sleep(0.2)
        raise place.Failed(f"not in use: {programmed}")

    def metrics(self):
        self.run("get", "--raw", f"/apis/metrics.smi-spec.io/v1alpha2/namespaces/{SHOP}/deployments/web")

    def memory(self):
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                program = os.path.basename(os.readlink(folder / "exe"))
                if program in LIMIT_MIB:
                    status = (folder / "status").read_text()
                    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
                    self.most[program] = max(self.most.get(program, 0), resident / 1024)
            except (OSError, StopIteration):
                continue


def namespace_with(ip):
    """The network namespace that holds this address."""
    names = [line.split()[0] for line in place.run("ip", "netns", "list").splitlines() if line]
    for name in names:
        if f" {ip}/" in place.run("ip", "-n", name, "-4", "-o", "addr", check=False):
            return name
    raise place.Failed(f"no network namespace holds {ip}")


def checkout():
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=HERE)
    return done.stdout.strip() or "unknown"


def page(rows, wrong, most):
    lines = ["# Hostile neighbours of the control plane", "", "Written by `make attack-control`; do not edit. Each flood comes from a pod without proxy and rights, at one port of one",
             "pod of the control plane. Beside it, over and over: a pod is injected and a bad TrafficSplit refused (through the API server),",
             "a changed TrafficSplit is waited for until its proxies use it, and traffic metrics are read. Seconds are of the slowest.",
             "Floods `within TLS` speak what the port negotiates, without a client certificate: HTTP/1.1 (`head`, `body`, `http`) or",
             "HTTP/2 (`head2`, `body2`, `http2`, `control` frames, and `resets` of requests, 128 at a time).",
             "", f"{time.strftime('%Y-%m-%d')}, checkout {checkout()}: {len(wrong)} complaints.", "",
             "| flood | at | injected | refused | in use | metrics | the flood says |", "|---|---|---|---|---|---|---|"]
    for flood, at, seen, said in rows:
        cells = [f"{one['done']} of {one['done'] + one['failed']}, {one['slowest']:.1f} s" for one in seen.values()]
        lines.append(f"| {flood} | {at} | {' | '.join(cells)} | {said} |")
    lines += ["", "| program | most, MiB | limit |", "|---|---|---|"]
    lines += [f"| {program} | {resident:.0f} | {LIMIT_MIB[program]} |" for program, resident in most.items()]
    lines += ["", "## Complaints", "", *([f"- {said}" for said in wrong] or ["None."])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
