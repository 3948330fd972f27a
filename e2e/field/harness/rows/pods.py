"""Pods as Kubernetes has them: rows 9, 12, 13."""

import json

from ..cluster import PROMPT, Side, deployment
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


ROWS = [Drain, Quota, Guaranteed]
