"""Pods as Kubernetes has them: rows 9 to 15."""

import json
import time

from ..cluster import PROMPT, PYTHON, READY, SETTLED, Failure, Side, deployment, node, pod, server, service
from ..verdict import SAME, differs, named, not_tried


class Drain:
    number = 9
    what = "`kubectl drain` of a pod without --delete-emptydir-data, and its eviction, both as dry run of the server"

    @staticmethod
    def tried(side):
        name = f"r9-{'meshed' if side.meshed else 'plain'}"
        side.apply(deployment(name, ["/bin/sleep", "3600"], programs=False))
        side.ready(name)
        pod = side.pods(name)[0]
        drain = side.cluster.attempt(
            "drain", pod["spec"]["nodeName"], "--dry-run=server", "--ignore-daemonsets", f"--pod-selector=app={name}",
            "--timeout=20s", timeout=PROMPT)
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "deleteOptions": {"dryRun": ["All"]},
                    "metadata": {"name": pod["metadata"]["name"], "namespace": side.namespace}}
        path = f"/api/v1/namespaces/{side.namespace}/pods/{pod['metadata']['name']}/eviction"
        evicted = side.cluster.attempt("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
        return {
            "drain": drain.returncode == 0,
            "why": (drain.stderr + drain.stdout).strip()[-300:],
            "storage": "local storage" in drain.stderr + drain.stdout,
            "evicted": evicted.returncode == 0,
            # What the cluster autoscaler goes by.
            "local": [volume["name"] for volume in pod["spec"].get("volumes", ())
                      if "emptyDir" in volume or "hostPath" in volume],
        }

    @staticmethod
    def shown(result):
        drain = "passes" if result["drain"] else "refused for local storage" if result["storage"] else "fails"
        eviction = "passes" if result["evicted"] else "refused"
        return f"drain {drain}; eviction {eviction}; local volumes: {', '.join(result['local']) or 'none'}"

    @staticmethod
    def judged(plain, meshed):
        if not plain["drain"] or not plain["evicted"]:
            return not_tried(f"it is refused without the mesh: {plain['why']}")
        if not meshed["drain"] or not meshed["evicted"]:
            return differs(f"the pod cannot be drained: {meshed['why']}")
        if meshed["local"]:
            return differs("the pod has local storage, and the cluster autoscaler keeps its node")
        return SAME


class Quota:
    number = 12
    what = "a pod with limits in a namespace whose ResourceQuota counts limits"
    STARTS_WITHIN = 25
    ANNOTATIONS = ("weft.dev/proxy-cpu-limit=500m", "weft.dev/proxy-memory-limit=128Mi")

    @classmethod
    def tried(cls, side):
        # In a namespace of its own, which has the programs of no other row.
        side = Side(side.cluster, f"{side.namespace}-quota", side.meshed)
        side.make_namespace()
        side.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "limits"},
                    "spec": {"hard": {"limits.cpu": "4", "limits.memory": "4Gi"}}})
        # A pod that comes before the quota is counted would be refused for that.
        side.until(PROMPT, "the quota is counted", lambda: side.json(
            "get", "resourcequota", "limits").get("status", {}).get("used"))
        some = {"cpu": "100m", "memory": "64Mi"}
        side.apply(deployment("r12", ["/bin/sleep", "3600"], programs=False,
                              resources={"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": some}))
        result = {"starts": cls.starts(side), "event": False, "check": False, "mended": False}
        if not result["starts"]:
            events = side.json("get", "events")["items"]
            result["event"] = any(event["reason"] == "PodsNotAdmitted" and event["type"] == "Warning" for event in events)
            status, text = side.cluster.check(side.namespace)
            result["check"] = status == 1 and "weft.dev/proxy-" in text
            side.cluster.kubectl("annotate", "--overwrite", "namespace", side.namespace, *cls.ANNOTATIONS)
            side.kubectl("rollout", "restart", "deployment/r12")
            result["mended"] = cls.starts(side)
        return result

    @classmethod
    def starts(cls, side):
        limit = cls.STARTS_WITHIN
        done = side.attempt("rollout", "status", f"--timeout={limit}s", "deployment/r12", timeout=limit + PROMPT)
        return done.returncode == 0

    @staticmethod
    def shown(result):
        if result["starts"]:
            return "starts"
        words = {"event": "Event", "check": "weft check", "mended": "the annotations help"}
        return "does not start; " + ", ".join(f"{word}: {'yes' if result[key] else 'no'}" for key, word in words.items())

    @classmethod
    def judged(cls, plain, meshed):
        if not plain["starts"]:
            return not_tried("the pod does not start without the mesh")
        if meshed["starts"]:
            return SAME
        lack = [key for key in ("event", "check", "mended") if not meshed[key]]
        return differs(f"no {' and no '.join(lack)}") if lack else named(cls.number)


class Guaranteed:
    number = 13
    what = "class of a pod whose limits are its requests"

    @staticmethod
    def tried(side):
        some = {"cpu": "50m", "memory": "64Mi"}
        side.apply(deployment("r13", ["/bin/sleep", "3600"], programs=False, resources={"requests": some, "limits": some}))
        side.ready("r13")
        return {"class": side.pods("r13")[0]["status"]["qosClass"]}

    @staticmethod
    def shown(result):
        return result["class"]

    @staticmethod
    def judged(plain, meshed):
        if plain["class"] != "Guaranteed":
            return not_tried("the pod is not Guaranteed without the mesh")
        return SAME if meshed == plain else differs("the pod has lost its class")


class Forwards:
    number = 10
    what = "a pod that forwards packets between two networks behind it"
    CALLS = 20

    @classmethod
    def tried(cls, side):
        side.apply(deployment("r10", ["/bin/sleep", "3600"], security={"privileged": True, "runAsUser": 0}))
        side.ready("r10")
        done = side.attempt("exec", "deployment/r10", "-c", "app", "--", "/bin/sh", "/field/forward.sh", timeout=120)
        try:
            return json.loads(done.stdout)
        except ValueError as error:
            raise Failure(f"{side.namespace}: no networks behind the pod: {done.stderr.strip()[-300:]}") from error

    @staticmethod
    def shown(result):
        return f"{result['calls'] - result['bad']}/{result['calls']} good"

    @staticmethod
    def judged(plain, meshed):
        if plain["bad"]:
            return not_tried("the pod forwards nothing without the mesh")
        return SAME if not meshed["bad"] else differs("packets that are only forwarded are captured")


class HttpsProbe:
    number = 11
    what = "an HTTPS probe of a server that speaks HTTP/2 and no other version"
    READY_WITHIN = 40

    @classmethod
    def tried(cls, side):
        probe = {"httpGet": {"path": "/", "port": 8443, "scheme": "HTTPS"}}
        side.apply(node("r11", "h2", 8443, probe=probe))
        limit = cls.READY_WITHIN
        done = side.attempt("rollout", "status", f"--timeout={limit}s", "deployment/r11", timeout=limit + PROMPT)
        return {"ready": done.returncode == 0}

    @staticmethod
    def shown(result):
        return "ready" if result["ready"] else "never ready"

    @staticmethod
    def judged(plain, meshed):
        if not plain["ready"]:
            return not_tried("the pod is not ready without the mesh")
        return SAME if meshed["ready"] else differs("the pod is never ready")


class ProxyRestarts:
    number = 14
    what = "a bare Pod with probes applied twice; the proxy killed twice under liveness probes by HTTP and by exec"
    KILLS = 2
    BARE = "r14-bare"
    KINDS = ("http", "exec")

    @classmethod
    def tried(cls, side):
        http = {"httpGet": {"path": "/", "port": 8080}}
        side.apply(cls.bare(http))
        again = side.attempt("apply", "-f", "-", stdin=json.dumps(cls.bare(http)))
        for kind, probe in zip(cls.KINDS, (http, {"exec": {"command": ["/bin/ls", "/tmp"]}})):
            made = server(f"r14-{kind}", "http", 8080, shareProcessNamespace=True, security={"runAsUser": 0})
            container = made["spec"]["template"]["spec"]["containers"][0]
            container["livenessProbe"] = probe | {"periodSeconds": 1, "failureThreshold": 3}
            side.apply(made)
        side.ready(*(f"r14-{kind}" for kind in cls.KINDS))
        if side.meshed:
            for number in range(1, cls.KILLS + 1):
                cls.kill(side, number)
        side.ready(*(f"r14-{kind}" for kind in cls.KINDS))
        restarts = {kind: cls.restarts(side, kind).get("app", 0) for kind in cls.KINDS}
        return {"again": again.returncode == 0, "restarts": restarts}

    @classmethod
    def bare(cls, probe):
        return pod(cls.BARE, [PYTHON, "/field/serve.py", "http", "8080"], port=8080, probe=probe)

    @classmethod
    def kill(cls, side, number):
        """Of both pods, and waits until their proxies have come back."""
        for kind in cls.KINDS:
            side.until(READY, "a process of the proxy", lambda kind=kind: side.attempt(
                "exec", f"deployment/r14-{kind}", "-c", "app", "--", PYTHON, "/field/processes.py", "weft-proxy", "KILL",
            ).stdout.strip() not in ("", "0"))
        for kind in cls.KINDS:
            side.until(READY, f"restart {number} of the proxy", lambda kind=kind: cls.restarts(
                side, kind).get("weft-proxy", 0) >= number)
        time.sleep(SETTLED)

    @staticmethod
    def restarts(side, kind):
        """Of containers that run."""
        status = side.pods(f"r14-{kind}")[0]["status"]
        containers = [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]
        return {one["name"]: one["restartCount"] for one in containers if "running" in one["state"]}

    @staticmethod
    def shown(result):
        again = "passes" if result["again"] else "is refused"
        restarts = ", ".join(f"{count} with {kind}" for kind, count in result["restarts"].items())
        return f"second apply {again}; restarts of the application: {restarts}"

    @classmethod
    def judged(cls, plain, meshed):
        if not plain["again"] or any(plain["restarts"].values()):
            return not_tried("applications restart without the mesh")
        if meshed["restarts"]["exec"]:
            return differs("an exec probe, the manual's way out, does not help")
        return SAME if meshed == plain else named(cls.number)


class Hints:
    number = 15
    what = "a Service with topology hints, called from a zone that has one of its three pods"
    CALLS = 60

    @classmethod
    def tried(cls, side):
        spread = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
                  "labelSelector": {"matchLabels": {"app": "r15"}}}
        side.apply(
            server("r15", "http", 8080, replicas=3, topologySpreadConstraints=[spread]),
            service("r15", [("http", 8080, 8080)], annotations={"service.kubernetes.io/topology-mode": "Auto"}))
        side.ready("r15")
        side.until(READY, "hints of all endpoints", lambda: sum(
            "hints" in endpoint for endpoint in side.ready_endpoints("r15")) == 3)
        time.sleep(SETTLED)
        names = side.call("many", "r15", 8080, cls.CALLS)["names"]
        here = side.pods("client")[0]["spec"]["nodeName"]
        nodes = {one["metadata"]["name"]: one["spec"]["nodeName"] for one in side.pods("r15")}
        return {"own": sum(count for name, count in names.items() if nodes.get(name) == here)}

    @classmethod
    def shown(cls, result):
        return f"{result['own']} of {cls.CALLS} calls in the own zone"

    @classmethod
    def judged(cls, plain, meshed):
        if plain["own"] < cls.CALLS:
            return not_tried("calls leave the zone without the mesh")
        return SAME if meshed == plain else differs("calls leave the zone")


ROWS = [Drain, Forwards, HttpsProbe, Quota, Guaranteed, ProxyRestarts, Hints]
