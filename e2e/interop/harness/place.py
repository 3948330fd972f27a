"""Two pods as network namespaces with a cable between them, directly or through
two proxies with the real redirection and a stand-in controller.

client   10.78.0.1, every other address by way of the server
server   10.78.0.2, and the Service's address 10.96.0.10
control  where the stand-in controller lives, on cables of its own
Others may stand on cables to the server of their own: 10.80.N.1.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time

PREFIX = "weft-i-"
CLIENT_IP, SERVER_IP, SERVICE_IP = "10.78.0.1", "10.78.0.2", "10.96.0.10"
CONTROL = {"client": "10.79.1.254", "server": "10.79.2.254"}
PROXY_ID = "15190"
READY_WITHIN = 20


class Failed(Exception):
    """Something of the harness itself did not work."""


def run(*line, timeout=30, check=True, cwd=None):
    done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, cwd=cwd)
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(line)} ({done.returncode}): {done.stdout}{done.stderr}")
    return done.stdout


class Program:
    """A running program and all that it starts; ends with `stop`, and with the harness."""

    def __init__(self, namespace, line, log, env=None, as_proxy=False, folder=None, cgroup=None):
        begin = ["ip", "netns", "exec", namespace, "setpriv", "--pdeathsig", "KILL"]
        if cgroup:
            # Before it begins, so that all of its memory counts. `ip` gives it mounts of its
            # own, where it finds the limit as in a container.
            folder_of, limit = cgroup
            begin = ["bash", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(folder_of), *begin[:4],
                     "bash", "-c", 'mount -t tmpfs none /sys/fs/cgroup && echo $0 > /sys/fs/cgroup/memory.max && exec "$@"', str(limit), *begin[4:]]
        if as_proxy:
            begin += ["--reuid", PROXY_ID, "--regid", PROXY_ID, "--clear-groups"]
        self.log, self.name = log, log.stem
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                begin + ["--", *map(str, line)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**os.environ, **(env or {})}, start_new_session=True, cwd=folder,
            )

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        # The group of its own, not a name: what it started goes with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def resident_kib(self):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        return 0


class Place:
    """`ports` are declared protocols; None means no proxies at all."""

    def __init__(self, name, folder, proxy=None, stand_in=None, ports=None, access="open", mtls="permissive",
                 rules=(), others=(), memory_mib=None, certified=()):
        """`others` are further pods: names, with what the stand-in says of them, or None for a pod without a proxy.
        `certified` are names that the stand-in certifies and that run nowhere, with what it says of them."""
        self.name, self.folder, self.proxy = name, pathlib.Path(folder), proxy
        self.folder.mkdir(parents=True, exist_ok=True)
        self.programs, self.proxies = [], {}
        base = f"{PREFIX}{os.getpid()}-{name}"
        others, self.certified = dict(others), dict(certified)
        self.memory_mib, self.cgroups = memory_mib, []
        self.ips = {"client": CLIENT_IP, "server": SERVER_IP, **{who: f"10.80.{at}.1" for at, who in enumerate(others)}}
        self.control = dict(CONTROL)
        self.namespaces = {who: f"{base}-{who[:2]}" for who in ("client", "server", "kontrol", *others)}
        for namespace in self.namespaces.values():
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        self._cable(("client", "eth0", CLIENT_IP), ("server", "eth0", SERVER_IP))
        for third, pod in enumerate(("client", "server"), 1):
            self._cable((pod, "ctl", f"10.79.{third}.1"), ("kontrol", f"to{third}", CONTROL[pod]))
        run("ip", "-n", self.namespaces["client"], "route", "add", "default", "via", SERVER_IP)
        for at, who in enumerate(others):
            self._cable((who, "eth0", f"10.80.{at}.1"), ("server", f"other{at}", f"10.80.{at}.2"))
            run("ip", "-n", self.namespaces[who], "route", "add", "default", "via", f"10.80.{at}.2")
            self.control[who] = f"10.79.{at + 3}.254"
            self._cable((who, "ctl", f"10.79.{at + 3}.1"), ("kontrol", f"to{at + 3}", self.control[who]))
        run("ip", "-n", self.namespaces["server"], "addr", "add", f"{SERVICE_IP}/32", "dev", "lo")
        for namespace in self.namespaces.values():
            # As every pod has them: a proxy that needs more ports than that runs out of them here too.
            for setting in ("net.ipv4.ip_local_port_range=32768 60999", "net.ipv4.tcp_tw_reuse=2"):
                run("ip", "netns", "exec", namespace, "sysctl", "-qw", setting)
        if proxy:
            try:
                self._mesh(stand_in, ports or {}, access, mtls, list(rules), {who: said for who, said in others.items() if said is not None})
            except Exception:
                # After a failed start the caller has no place to close.
                self.close()
                raise

    def _cable(self, one, other):
        (a, a_device, a_ip), (b, b_device, b_ip) = one, other
        run("ip", "-n", self.namespaces[a], "link", "add", a_device, "type", "veth", "peer", "name", b_device,
            "netns", self.namespaces[b])
        for who, device, ip in (one, other):
            run("ip", "-n", self.namespaces[who], "addr", "add", f"{ip}/24", "dev", device)
            run("ip", "-n", self.namespaces[who], "link", "set", device, "up")

    def _mesh(self, stand_in, ports, access, mtls, rules, others):
        root = self.folder / "root.pem"
        pods = [{"name": "client", "ip": CLIENT_IP, "access": "open", "mtls": mtls},
                {"name": "server", "ip": SERVER_IP, "access": access, "mtls": mtls,
                 "ports": {str(port): kind for port, kind in ports.items()}, "rules": rules},
                *[{"name": who, "ip": self.ips[who], "access": "open", "mtls": mtls, **said} for who, said in others.items()],
                *[{"name": who, "ip": f"10.81.0.{at}", "access": "open", "mtls": mtls, **said} for at, (who, said) in enumerate(self.certified.items(), 1)]]
        cluster = {"listen": "0.0.0.0:8443", "root": str(root), "service": SERVICE_IP, "serves": "server", "pods": pods}
        (self.folder / "cluster.json").write_text(json.dumps(cluster, indent=1))
        log = self.folder / "stand-in.log"
        log.unlink(missing_ok=True)
        self.stand_in = self.start("kontrol", [stand_in, self.folder / "cluster.json"], "stand-in")
        until(lambda: log.exists() and "ready" in log.read_text(), READY_WITHIN, f"the stand-in controller; see {log}")
        for pod in ("server", "client", *others):
            self.run(pod, [self.proxy, "capture"])
            self.start_proxy(pod)
        for pod in ("server", "client", *others):
            self.wait_ready(pod)

    def start_proxy(self, pod, env=None):
        (self.folder / pod).write_text(pod)
        settings = {
            "WEFT_NAMESPACE": "interop", "WEFT_POD_NAME": pod, "WEFT_SERVICE_ACCOUNT": pod, "WEFT_POD_IPS": self.ips[pod],
            "WEFT_TRUST_DOMAIN": "cluster.local", "WEFT_CONTROLLER_NAMESPACE": "weft-system",
            "WEFT_CONTROLLER_ADDRESS": f"{self.control[pod]}:8443", "WEFT_TOKEN_FILE": str(self.folder / pod),
            "WEFT_TRUST_BUNDLE": str(self.folder / "root.pem"), "WEFT_LOG": os.environ.get("WEFT_LOG", "warn"),
        }
        self.proxies[pod] = self.start(pod, [self.proxy, "run"], f"proxy-{pod}", env={**settings, **(env or {})}, as_proxy=True,
                                       cgroup=self._cgroup(pod))

    def _cgroup(self, pod):
        """Limits what a pod's proxy may take, with either version of control groups."""
        if self.memory_mib is None:
            return None
        base = pathlib.Path("/sys/fs/cgroup")
        unified = "memory" in (base / "cgroup.controllers").read_text() if (base / "cgroup.controllers").exists() else False
        group = (base if unified else base / "memory") / f"{PREFIX}{os.getpid()}-{self.name}-{pod}"
        if unified:
            (base / "cgroup.subtree_control").write_text("+memory")
        group.mkdir(exist_ok=True)
        limit = self.memory_mib * 1024 * 1024
        (group / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(limit))
        self.cgroups.append(group)
        return group, limit

    def wait_ready(self, pod):
        ask = ["curl", "-sf", "-o", "/dev/null", "http://127.0.0.1:15190/ready"]
        until(lambda: self.call(pod, ask, 5)[0] == 0, READY_WITHIN, f"the proxy of {pod} in {self.folder}")

    def metrics(self, pod):
        return self.call(pod, ["curl", "-s", "http://127.0.0.1:15190/metrics"], 5)[1]

    def start(self, pod, line, name, env=None, as_proxy=False, cgroup=None):
        program = Program(self.namespaces[pod], line, self.folder / f"{name}.log", env, as_proxy, self.folder, cgroup)
        self.programs.append(program)
        return program

    def stop(self, program):
        program.stop()
        self.programs.remove(program)

    def run(self, pod, line):
        return run("ip", "netns", "exec", self.namespaces[pod], *map(str, line))

    def call(self, pod, line, limit, env=None):
        """Status, what it printed, what it complained; status None after `limit` seconds."""
        whole = ["ip", "netns", "exec", self.namespaces[pod], "setpriv", "--pdeathsig", "KILL", "--", *map(str, line)]
        process = subprocess.Popen(whole, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env={**os.environ, **(env or {})}, start_new_session=True, cwd=self.folder)
        try:
            out, err = process.communicate(timeout=limit)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            status = None
        return status, out.decode(errors="backslashreplace"), err.decode(errors="backslashreplace")

    def listening(self, pod, port):
        """By the kernel's own table, so that no connection is made to find out."""
        sockets = self.call(pod, ["ss", "-Hltn"], 5)[1]
        return any(line.split()[3].endswith(f":{port}") for line in sockets.splitlines())

    def ended(self):
        return [pod for pod, program in self.proxies.items() if not program.alive()]

    def complaints(self):
        """Anything that must never happen, whatever the row."""
        said = []
        for pod, program in self.proxies.items():
            log = pathlib.Path(program.log).read_text(errors="replace")
            if not program.alive():
                said.append(f"{self.name}: the proxy of {pod} ended: {log[-400:]}")
            if "panicked" in log:
                said.append(f"{self.name}: the proxy of {pod} panicked: {log[-400:]}")
        if self.proxies and "refused" in pathlib.Path(self.stand_in.log).read_text():
            said.append(f"{self.name}: a proxy refused configuration, see {self.stand_in.log}")
        return said

    def close(self):
        for program in reversed(self.programs):
            program.stop()
        for namespace in self.namespaces.values():
            # Servers may have left child processes behind, as RabbitMQ does.
            end_all_in(namespace)
            run("ip", "netns", "del", namespace, check=False)
        for group in self.cgroups:
            with contextlib.suppress(OSError):
                group.rmdir()


def end_all_in(namespace):
    for inside in run("ip", "netns", "pids", namespace, check=False).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(inside), signal.SIGKILL)


def until(true, seconds, what):
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def remove_what_dead_runs_left():
    for entry in pathlib.Path("/run/netns").glob(f"{PREFIX}*"):
        pid = entry.name[len(PREFIX):].split("-")[0]
        if pathlib.Path("/proc", pid).exists():
            continue
        end_all_in(entry.name)
        run("ip", "netns", "del", entry.name, check=False)
