"""What ports carry beside plain requests: rows 4 to 8."""

import time

from ..cluster import READY, SETTLED, account, nginx, node, server, service
from ..verdict import SAME, differs, named, not_tried

# PostgreSQL's request for TLS, the first bytes of its clients.
SSL_REQUEST = "0000000804d2162f"


class TwoNames:
    number = 4
    what = "one container port behind `http` (80) and `https` (443) of one Service"
    CALLS = 10

    @classmethod
    def tried(cls, side):
        side.apply(server("r4", "either", 8080), service("r4", [("http", 80, 8080), ("https", 443, 8080)]))
        side.ready("r4")
        side.answers("http://r4/")
        calls = {scheme: [side.curl(f"{scheme}://r4/") for _ in range(cls.CALLS)] for scheme in ("http", "https")}
        good = {scheme: sum(call["status"] == 200 for call in made) for scheme, made in calls.items()}
        return good | {"slowest": max(call["seconds"] for made in calls.values() for call in made)}

    @classmethod
    def shown(cls, result):
        return (f"http {result['http']}/{cls.CALLS}, https {result['https']}/{cls.CALLS}, "
                f"the slowest after {result['slowest']} s")

    @classmethod
    def judged(cls, plain, meshed):
        if plain["http"] < cls.CALLS or plain["https"] < cls.CALLS:
            return not_tried("calls fail without the mesh")
        if meshed["http"] < cls.CALLS or meshed["https"] < cls.CALLS:
            return differs("one of the two names is not served")
        return SAME


class ForeignBytes:
    number = 5
    what = "TLS to nginx and PostgreSQL's first bytes, each on a port named http"
    # Shall be 0.1 s; TLS by curl has a handshake of TCP and a name in front of it.
    RESET_WITHIN = 1.0

    @staticmethod
    def tried(side):
        side.apply(
            nginx("r5-tls", 8443), service("r5-tls", [("http", 80, 8443)]),
            server("r5-raw", "raw", 5432), service("r5-raw", [("http", 5432, 5432)]),
        )
        side.ready("r5-tls", "r5-raw")
        side.until(READY, "an answer of r5-tls", lambda: side.curl("http://r5-tls/", seconds=3)["status"] != 0)
        time.sleep(SETTLED)
        return {"tls": side.curl("https://r5-tls:80/"), "raw": side.call("bytes", "r5-raw", 5432, SSL_REQUEST)}

    @staticmethod
    def shown(result):
        tls, raw = result["tls"], result["raw"]
        end = f"status {tls['status']}" if tls["status"] else f"curl's error {tls['exit']}"
        answer = f" {raw['answer'][:12]!r}" if raw["answer"] else ""
        return f"TLS: {end} after {tls['seconds']} s; bytes: {raw['first']}{answer} after {raw['seconds']} s"

    @classmethod
    def judged(cls, plain, meshed):
        if plain["tls"]["status"] != 200 or plain["raw"]["answer"] != "N":
            return not_tried("the protocol does not work without the mesh")
        tls, raw = meshed["tls"], meshed["raw"]
        if tls["status"] == 200 and raw["answer"] == "N":
            return SAME
        if tls["status"] not in (0, 200) or raw["answer"].startswith("HTTP/"):
            return differs("an HTTP answer into a foreign protocol")
        if tls["status"] == 0 and tls["seconds"] > cls.RESET_WITHIN:
            return differs(f"TLS hangs longer than {cls.RESET_WITHIN} s")
        if raw["answer"] != "N" and (raw["first"] == "silence" or raw["seconds"] > cls.RESET_WITHIN):
            return differs(f"bytes hang longer than {cls.RESET_WITHIN} s")
        return named(cls.number)


class UpgradeByPost:
    number = 6
    what = "POST with a body and `Upgrade: tcp`, as docker exec sends it"
    CALLS = 5

    @classmethod
    def tried(cls, side):
        side.apply(node("r6", "exec", 8080), service("r6", [("http", 8080, 8080)]))
        side.ready("r6")
        side.answers("http://r6:8080/")
        return side.call("upgrade", "r6", 8080, cls.CALLS)

    @staticmethod
    def shown(result):
        return f"{result['good']}/{result['calls']} upgraded; {', '.join(result['answers'])}"

    @classmethod
    def judged(cls, plain, meshed):
        if plain["good"] < cls.CALLS:
            return not_tried("the upgrade fails without the mesh")
        return SAME if meshed["good"] == cls.CALLS else differs("the upgrade is lost")


class ForwardProxy:
    number = 7
    what = "a forward proxy: absolute form on ports named http and otherwise, CONNECT on these and on one named tcp"
    PORTS = {"http": 8080, "undeclared": 8081, "tcp": 8082}

    @classmethod
    def tried(cls, side):
        names = {"http": "http", "undeclared": "proxy", "tcp": "tcp-proxy"}
        side.apply(
            node("r7", "forward", *cls.PORTS.values()),
            service("r7", [(names[kind], port, port) for kind, port in cls.PORTS.items()]),
            nginx("r7-up", 8080), service("r7-up", [("http", 80, 8080), ("https", 443, 8443)]),
        )
        side.ready("r7", "r7-up")
        side.answers("http://r7-up/")
        side.until(READY, "an answer of r7", lambda: side.curl("http://r7:8080/", seconds=3)["status"] == 400)
        return {kind: {"absolute": cls.absolute(side, port), "connect": side.curl(
            "https://r7-up/", "-x", f"http://r7:{port}")["status"]} for kind, port in cls.PORTS.items()}

    @staticmethod
    def absolute(side, port):
        """What the forward proxy was sent."""
        printed = side.inside("/usr/bin/curl", "-sS", "--max-time", "12", "-o", "/dev/null", "-D", "-",
                              "-x", f"http://r7:{port}", "http://r7-up/page?a=b").stdout
        status, *lines = printed.splitlines() or [""]
        seen = dict(line.lower().split(": ", 1) for line in lines if line.lower().startswith("x-"))
        return {"status": (status.split() or ["", "0"])[1], "target": seen.get("x-target", ""),
                "host": seen.get("x-host", ""), "added": seen.get("x-added", "")}

    @staticmethod
    def shown(result):
        return "; ".join(
            f"{kind}: {one['absolute']['status']} for {one['absolute']['target'] or 'nothing'}, added headers: "
            f"{one['absolute']['added'] or '-'}, CONNECT {one['connect']}" for kind, one in result.items())

    @classmethod
    def judged(cls, plain, meshed):
        if any(one["absolute"]["status"] != "200" or one["connect"] != 200 for one in plain.values()):
            return not_tried("the forward proxy does not serve without the mesh")
        lost = [kind for kind in cls.PORTS if meshed[kind]["absolute"] != plain[kind]["absolute"]]
        if lost:
            return differs(f"absolute form does not arrive as it was sent on ports: {', '.join(lost)}")
        if meshed["tcp"]["connect"] != 200:
            return differs("CONNECT fails on a port named tcp, which is the way out")
        connects = {meshed[kind]["connect"] for kind in cls.PORTS}
        return SAME if connects == {200} else named(cls.number)


class EscapedSlash:
    number = 8
    what = "`%2F` and `//` in paths, where a rule allows everything"
    PATHS = ("/api/queues/%2F/jobs", "/@team%2fpackage", "/bucket//key", "/a%2Fb//c?x=%2F")

    @classmethod
    def tried(cls, side):
        # Of an account of its own, or the rule would be about the pods of all rows.
        side.apply(account("r8"), server("r8", "show", 8080, serviceAccountName="r8"), service("r8", [("http", 8080, 8080)]))
        if side.meshed:
            source = {"kind": "ServiceAccount", "name": "default", "namespace": side.namespace}
            side.apply(
                {"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup", "metadata": {"name": "r8"},
                 "spec": {"matches": [{"name": "everything", "methods": ["*"]}]}},
                {"apiVersion": "access.smi-spec.io/v1alpha4", "kind": "TrafficTarget", "metadata": {"name": "r8"},
                 "spec": {"destination": {"kind": "ServiceAccount", "name": "r8"}, "sources": [source],
                          "rules": [{"kind": "HTTPRouteGroup", "name": "r8"}]}})
        side.ready("r8")
        side.answers("http://r8:8080/")
        time.sleep(SETTLED)
        return side.call("paths", "r8", 8080, *cls.PATHS)

    @classmethod
    def shown(cls, result):
        return ", ".join("as sent" if path == got else got for path, got in zip(cls.PATHS, result["answers"]))

    @classmethod
    def judged(cls, plain, meshed):
        if plain["answers"] != list(cls.PATHS):
            return not_tried("paths do not arrive as sent without the mesh")
        return SAME if meshed == plain else differs("a path does not arrive as it was sent")


ROWS = [TwoNames, ForeignBytes, UpgradeByPost, ForwardProxy, EscapedSlash]
