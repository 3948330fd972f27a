"""The mesh's namespace goes: row 20, the last one, since it ends the mesh."""

import json

from ..cluster import PROMPT, Failure, pod
from ..verdict import SAME, differs, named, not_tried

MESH = "weft-system"


class NamespaceOfTheMesh:
    number = 20
    what = "a pod is made and a namespace deleted, after the mesh's namespace was; then what `weft uninstall` prints is deleted"
    # Without the mesh first, in a cluster that has lost nothing yet.
    # And of the local cluster only: nothing of a user's is ended.
    alone = in_turn = last = local = True
    GONE_WITHIN, HANGS, AFTER = 90, 15, 120

    @classmethod
    def tried(cls, side):
        passing = f"{side.namespace}-passing"
        side.cluster.kubectl("create", "namespace", passing)
        if not side.meshed:
            return {"pod": cls.made(side), "namespace": cls.gone(side, passing, cls.HANGS), "check": True,
                    "pod_after": True, "namespace_after": True}
        side.cluster.kubectl("delete", "namespace", MESH, "--wait=false")
        side.until(cls.GONE_WITHIN, "the end of the mesh's pods", lambda: not json.loads(side.cluster.kubectl(
            "get", "pods", "-n", MESH, "-o", "json"))["items"])
        result = {"pod": cls.made(side), "namespace": cls.gone(side, passing, cls.HANGS)}
        status, text = side.cluster.check(side.namespace)
        result["check"] = status == 1 and "weft uninstall" in text
        printed = side.cluster.run_weft("uninstall")
        # 1: pods of this and of other rows still have a proxy.
        if printed.returncode not in (0, 1):
            raise Failure(f"weft uninstall: {printed.stderr.strip()[-300:]}")
        side.cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=printed.stdout, timeout=120)
        result["pod_after"] = cls.made(side)
        result["namespace_after"] = all(cls.gone(side, name, cls.AFTER) for name in (passing, MESH))
        return result

    @staticmethod
    def made(side):
        """Whether the API server takes a pod, without making it."""
        one = json.dumps(pod("r20", ["/bin/sleep", "1"]))
        return side.attempt("create", "--dry-run=server", "-f", "-", stdin=one).returncode == 0

    @staticmethod
    def gone(side, name, seconds):
        limit = seconds + PROMPT
        words = ("delete", "namespace", name, "--ignore-not-found", f"--timeout={seconds}s")
        return side.cluster.attempt(*words, timeout=limit).returncode == 0

    @staticmethod
    def shown(result):
        words = {"pod": "pod made", "namespace": "namespace deleted", "check": "weft check names the command",
                 "pod_after": "then pod made", "namespace_after": "then namespaces deleted"}
        return ", ".join(f"{word}: {'yes' if result[key] else 'no'}" for key, word in words.items())

    @classmethod
    def judged(cls, plain, meshed):
        if not plain["pod"] or not plain["namespace"]:
            return not_tried("pods are refused or namespaces stay without the mesh")
        if meshed == plain:
            return SAME
        lack = [key for key in ("check", "pod_after", "namespace_after") if not meshed[key]]
        return differs(f"no way out: {', '.join(lack)}") if lack else named(cls.number)


ROWS = [NamespaceOfTheMesh]
