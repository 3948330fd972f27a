"""The two namespaces, what runs in them, and what is called from within."""

import contextlib
import dataclasses
import json
import pathlib
import subprocess
import time

IMAGE = "weft.local/field/tools:1"
PYTHON = "/usr/bin/python3"
INJECTED = {"weft.dev/inject": "enabled"}
# Pods are ready in 2 to 5 s; a busy machine of two cores takes longer.
READY = 90
# After which proxies and kube-proxy follow what was made; they take less than a second.
SETTLED = 3
# Of a command of kubectl that waits for nothing.
PROMPT = 30


class Failure(Exception):
    """A row could not be tried; the text says what did not come about."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """kubectl of the path and the command `weft`, which know the cluster by KUBECONFIG."""

    weft: pathlib.Path

    def kubectl(self, *words, stdin=None, timeout=PROMPT):
        done = self.attempt(*words, stdin=stdin, timeout=timeout)
        if done.returncode != 0:
            raise Failure(f"kubectl {' '.join(words)}: {(done.stderr or done.stdout).strip()[-400:]}")
        return done.stdout

    def attempt(self, *words, stdin=None, timeout=PROMPT):
        """The same where an error is a result."""
        return run(["kubectl", *words], stdin, timeout)

    def check(self, namespace):
        """What `weft check` finds wrong in a namespace."""
        done = self.run_weft("check", "-n", namespace)
        return done.returncode, done.stdout + done.stderr

    def run_weft(self, *words):
        return run([self.weft, *words], None, 60)


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the namespaces, with the mesh or without."""

    cluster: Cluster
    namespace: str
    meshed: bool

    def make(self, programs):
        """The namespace, with the programs and one pod that calls."""
        self.make_namespace()
        self.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "programs"}, "data": programs},
            deployment("client", ["/bin/sleep", "3600"]),
        )
        self.ready("client")

    def make_namespace(self):
        labels = INJECTED if self.meshed else {}
        metadata = {"name": self.namespace, "labels": labels}
        self.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
        self.until(PROMPT, "a default service account", lambda: self.attempt("get", "sa", "default").returncode == 0)

    def kubectl(self, *words, **more):
        return self.cluster.kubectl("-n", self.namespace, *words, **more)

    def attempt(self, *words, **more):
        return self.cluster.attempt("-n", self.namespace, *words, **more)

    def json(self, *words):
        return json.loads(self.kubectl(*words, "-o", "json"))

    def apply(self, *objects):
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def ready(self, *deployments):
        names = [f"deployment/{name}" for name in deployments]
        self.kubectl("rollout", "status", f"--timeout={READY}s", *names, timeout=READY + PROMPT)

    def pods(self, app):
        """Those that are not ending."""
        items = self.json("get", "pods", "-l", f"app={app}")["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def inside(self, *command, timeout=PROMPT):
        """What a command printed in the pod that calls, whatever its status."""
        return self.attempt("exec", "deployment/client", "-c", "app", "--", *command, timeout=timeout)

    def call(self, *words, timeout=60, client="client"):
        """A client of programs/call.py to its end."""
        return parsed(self.attempt("exec", f"deployment/{client}", "-c", "app", "--", PYTHON, "/field/call.py",
                                   *map(str, words), timeout=timeout))

    def curl(self, url, *options, seconds=12):
        """Status, exit status of curl and seconds of one request."""
        done = self.inside(
            "/usr/bin/curl", "-ksS", "--max-time", str(seconds), "-o", "/dev/null",
            "-w", "%{http_code} %{time_total}", *options, url, timeout=seconds + PROMPT)
        words = done.stdout.split()
        if len(words) != 2:
            raise Failure(f"curl {url} printed nothing: {done.stderr.strip()[-200:]}")
        return {"status": int(words[0]), "exit": done.returncode, "seconds": round(float(words[1]), 2)}

    @contextlib.contextmanager
    def calling(self, *words, program="call.py"):
        """A client that runs until the line that `finish` of what this gives writes."""
        command = ["kubectl", "-n", self.namespace, "exec", "-i", "deployment/client", "-c", "app",
                   "--", PYTHON, f"/field/{program}", *map(str, words)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            yield Calling(process)
        finally:
            process.kill()
            process.wait()

    def ready_endpoints(self, service):
        slices = self.json("get", "endpointslices", "-l", f"kubernetes.io/service-name={service}")["items"]
        return [endpoint for part in slices for endpoint in part.get("endpoints") or ()
                if endpoint["conditions"].get("ready")]

    def settled(self, service, endpoints):
        """Waits until a Service has as many endpoints, and callers follow them."""
        self.until(READY, f"{endpoints} endpoints of {service}", lambda: len(self.ready_endpoints(service)) == endpoints)
        time.sleep(SETTLED)

    def answers(self, url):
        """Waits until the name is known, and its first answer is there."""
        self.until(READY, f"an answer of {url}", lambda: self.curl(url, seconds=3)["status"] == 200)

    def until(self, seconds, what, condition):
        limit = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > limit:
                raise Failure(f"{self.namespace}: not within {seconds} s: {what}")
            time.sleep(0.5)


@dataclasses.dataclass(frozen=True)
class Calling:
    process: subprocess.Popen

    def finish(self, timeout=60):
        try:
            out, error = self.process.communicate("mark\n", timeout=timeout)
        except subprocess.TimeoutExpired as expired:
            raise Failure("the client did not end") from expired
        return parsed(subprocess.CompletedProcess([], self.process.returncode, out, error))


def parsed(done):
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        raise Failure(f"the client ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}") from error


def run(command, stdin, timeout):
    try:
        return subprocess.run(
            [str(word) for word in command], input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"not within {timeout} s: {' '.join(map(str, command))}") from error


def deployment(name, command, *, port=None, replicas=1, labels=None, annotations=None, **more):
    """A Deployment whose pods have the label app=NAME, ready when the port takes connections."""
    metadata = {"labels": {"app": name} | (labels or {}), "annotations": annotations or {}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": metadata, "spec": pod_spec(command, port, **more)},
        },
    }


def pod(name, command, *, port=None, labels=None, **more):
    """A bare Pod."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name} | (labels or {})},
            "spec": pod_spec(command, port, **more)}


def pod_spec(command, port=None, *, resources=None, env=None, programs=True, probe=True, grace=1, security=None, **more):
    """`probe` may be one of one's own, and `more` are fields of the spec."""
    container = {"name": "app", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": command}
    if port:
        container["ports"] = [{"containerPort": port}]
        if probe:
            container["readinessProbe"] = {"periodSeconds": 1} | (
                probe if isinstance(probe, dict) else {"tcpSocket": {"port": port}})
    if resources:
        container["resources"] = resources
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
    if security:
        container["securityContext"] = security
    spec = {"terminationGracePeriodSeconds": grace, "enableServiceLinks": False,
            "automountServiceAccountToken": False, "containers": [container]}
    if programs:
        container["volumeMounts"] = [{"name": "programs", "mountPath": "/field"}]
        spec["volumes"] = [{"name": "programs", "configMap": {"name": "programs"}}]
    return spec | more


def server(name, manner, port, **more):
    """A Deployment of programs/serve.py."""
    return deployment(name, [PYTHON, "/field/serve.py", manner, str(port)], port=port, **more)


def node(name, manner, port, *more_ports, **more):
    """A Deployment of programs/serve.js."""
    ports = [str(one) for one in (port, *more_ports)]
    return deployment(name, ["/usr/bin/node", "/field/serve.js", manner, *ports], port=port, **more)


def started(name, port, *words, **more):
    """A Deployment of programs/start.sh."""
    return deployment(name, ["/bin/sh", "/field/start.sh", *words], port=port, **more)


def nginx(name, port, **more):
    """A Deployment of nginx: HTTP on 8080, HTTPS on 8443."""
    return deployment(name, ["/usr/sbin/nginx", "-e", "stderr", "-c", "/field/nginx.conf"], port=port, **more)


def account(name):
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


def service(name, ports, *, selector=None, headless=False, annotations=None):
    """Ports are (name, port, port of the container)."""
    spec = {
        "selector": selector or {"app": name},
        "ports": [{"name": word, "port": port, "targetPort": target} for word, port, target in ports],
    }
    if headless:
        spec["clusterIP"] = "None"
    metadata = {"name": name, "annotations": annotations or {}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def split(name, **weights):
    """A TrafficSplit of a Service; backends with `_` for `-`."""
    backends = [{"service": backend.replace("_", "-"), "weight": weight} for backend, weight in weights.items()]
    return {"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit", "metadata": {"name": name},
            "spec": {"service": name, "backends": backends}}


def policy(name, **sections):
    """A TrafficPolicy of the Service of that name."""
    return {"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": {"name": name},
            "spec": {"targetRef": {"kind": "Service", "name": name}} | sections}
