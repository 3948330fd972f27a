"""Connections and names: rows 1, 3, 16, 18, 26."""

import concurrent.futures
import json
import time

from ..cluster import PYTHON, READY, SETTLED, Failure, deployment, nginx, server, service
from ..verdict import SAME, differs, named, not_tried


class KeptConnection:
    number = 1
    what = "kept connections to pods of headless Services, whose Deployments are restarted: HTTP/1.1, and gRPC twice"
    # Two of a hundred calls: a machine of two cores starts the next pod meanwhile.
    LOST = 2
    ENOUGH = 50
    labels = {}

    @classmethod
    def tried(cls, side):
        # The servers serve two seconds more when they are ended, and need that grace.
        more = {"grace": 10, "labels": cls.labels}
        grpc = [PYTHON, "/field/grpc_pods.py", "serve", "8080"]
        web, rpc = f"r{cls.number}", f"r{cls.number}-grpc"
        side.apply(server(web, "http", 8080, **more), service(web, [("http", 8080, 8080)], headless=True),
                   deployment(rpc, grpc, port=8080, replicas=2, **more), service(rpc, [("grpc", 8080, 8080)], headless=True))
        side.ready(web, rpc)
        side.answers(f"http://{web}:8080/")
        side.settled(rpc, 2)
        with (side.calling("keep", web, 8080) as http_client,
              side.calling("keep", rpc, 8080, program="grpc_pods.py") as grpc_client):
            cls.restarted(side, web, rpc)
            cls.restarted(side, rpc)
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                results = pool.map(lambda client: client.finish(), (http_client, grpc_client))
                return dict(zip(("http", "grpc"), results))

    @staticmethod
    def restarted(side, *names):
        old = [pod["metadata"]["name"] for name in names for pod in side.pods(name)]
        side.kubectl("rollout", "restart", *(f"deployment/{name}" for name in names))
        side.ready(*names)
        side.until(READY, f"the end of {' and '.join(old)}", lambda: all(
            side.attempt("get", "pod", pod).returncode != 0 for pod in old))

    @staticmethod
    def shown(result):
        return "; ".join(f"{kind}: {one['last_bad']} of the last {one['last']} calls bad, {one['bad']} of {one['calls']} in all"
                         for kind, one in result.items())

    @classmethod
    def judged(cls, plain, meshed):
        for kind, without in plain.items():
            within = meshed[kind]
            if without["last"] < cls.ENOUGH:
                return not_tried(f"the client of {kind} made too few calls without the mesh")
            if within["last"] < cls.ENOUGH:
                return differs(f"calls by {kind} hang")
            if without["last_bad"] > cls.LOST:
                return not_tried(f"calls by {kind} fail without the mesh")
            if within["last_bad"] > cls.LOST:
                return differs(f"the connection of {kind} is kept though its pod is gone")
        return SAME


class KeptConnectionOutside(KeptConnection):
    number = 3
    what = "the same where the pods of the Services have no proxy"
    labels = {"weft.dev/inject": "disabled"}


class DeadAddress:
    number = 16
    what = "a headless name with one address at which nothing listens, called by curl"
    CALLS = 40
    # Whether the dead pod has a proxy as well.
    VARIANTS = ("alike", "bare")

    @classmethod
    def tried(cls, side):
        bare = {"weft.dev/inject": "disabled"}
        objects = []
        for variant, more in zip(cls.VARIANTS, ({}, bare)):
            name = f"r16-{variant}"
            chosen = {"group": name}
            # Ready at once, and nothing listens on its port.
            dead = deployment(f"{name}-dead", ["/bin/sleep", "3600"], labels=chosen | more)
            objects += [nginx(f"{name}-live", 8080, labels=chosen), dead,
                        service(name, [("http", 8080, 8080)], selector=chosen, headless=True)]
        side.apply(*objects)
        side.ready(*(f"r16-{variant}-{state}" for variant in cls.VARIANTS for state in ("live", "dead")))
        return {variant: cls.good(side, f"r16-{variant}") for variant in cls.VARIANTS}

    @classmethod
    def good(cls, side, name):
        dead, live = (side.pods(f"{name}-{state}")[0]["status"]["podIP"] for state in ("dead", "live"))
        side.until(READY, f"an answer of {live}", lambda: side.curl(f"http://{live}:8080/", seconds=3)["status"] == 200)
        time.sleep(SETTLED)
        # In this order, which an answer of DNS leaves to chance.
        script = (f"for i in $(/bin/seq {cls.CALLS}); do /usr/bin/curl -s -o /dev/null -w '%{{http_code}}\\n' "
                  f"--max-time 3 --resolve {name}:8080:{dead},{live} http://{name}:8080/; done")
        printed = side.inside("/bin/sh", "-c", script, timeout=cls.CALLS * 3 + 30).stdout.split()
        if len(printed) != cls.CALLS:
            raise Failure(f"curl printed {len(printed)} of {cls.CALLS} lines")
        return printed.count("200")

    @classmethod
    def shown(cls, result):
        return f"{result['alike']}/{cls.CALLS} good; with a dead pod without proxy {result['bare']}/{cls.CALLS}"

    @classmethod
    def judged(cls, plain, meshed):
        if any(plain[variant] < cls.CALLS for variant in cls.VARIANTS):
            return not_tried("calls fail without the mesh")
        if any(meshed[variant] < cls.CALLS for variant in cls.VARIANTS):
            return differs("the client's own choice of the next address is lost")
        return SAME


class ConnectOnly:
    number = 18
    what = "`nc -z` to a Service without a pod, then bytes on a port named tcp and a request on one named http"
    # Shall be 0.1 s.
    RESET_WITHIN = 1.0

    @staticmethod
    def tried(side):
        side.apply(service("r18", [("tcp-raw", 9000, 9000), ("http", 8080, 8080)]))
        ip = side.json("get", "service", "r18")["spec"]["clusterIP"]
        look = "import socket; socket.getaddrinfo('r18', 9000)"
        side.until(READY, "the name r18", lambda: side.inside(PYTHON, "-c", look).returncode == 0)
        time.sleep(SETTLED)
        return {
            "nc": side.inside("/usr/bin/nc", "-z", "-w", "3", ip, "9000").returncode == 0,
            "bytes": side.call("bytes", "r18", 9000, "00010203"),
            "http": side.curl("http://r18:8080/")["status"],
        }

    @staticmethod
    def shown(result):
        nc = "succeeds" if result["nc"] else "fails"
        return f"nc {nc}; bytes: {result['bytes']['first']} after {result['bytes']['seconds']} s; http: {result['http']}"

    @classmethod
    def judged(cls, plain, meshed):
        if plain["nc"]:
            return not_tried("nc succeeds without the mesh")
        if not meshed["nc"]:
            return SAME
        if meshed["bytes"]["first"] not in ("reset", "end") or meshed["bytes"]["seconds"] > cls.RESET_WITHIN:
            return differs(f"bytes are not reset within {cls.RESET_WITHIN} s")
        if meshed["http"] != 503:
            return differs("a request without an endpoint is not answered with 503")
        return named(cls.number)


class HalfClose:
    number = 26
    what = "a client that closes its sending direction and waits 15 s for the answer"
    # Shall be 2.5 s.
    GONE_WITHIN = 5.0

    @classmethod
    def tried(cls, side):
        side.apply(server("r26", "slow", 8080), service("r26", [("http", 8080, 8080)]))
        side.ready("r26")
        pod = side.pods("r26")[0]["metadata"]["name"]
        seen = []

        def answered():
            before = len(cls.log(side, pod))
            client = side.call("half", "r26", 8080)
            if client["first"] == "refused" or client["answer"].startswith("HTTP/1.1 503"):
                return False
            # It prints behind its answer's time, whether or not the client is still there.
            side.until(30, "a line of the server", lambda: len(cls.log(side, pod)) > before)
            seen.append((client, cls.log(side, pod)[-1]["end"]))
            return True

        side.until(READY, "a request that reaches the server", answered)
        client, end = seen[0]
        return {"end": end, "client": client}

    @staticmethod
    def log(side, pod):
        lines = side.kubectl("logs", pod, "-c", "app").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    @staticmethod
    def shown(result):
        end = "no end seen" if result["end"] is None else f"server sees the end after {result['end']} s"
        client = result["client"]
        return f"{end}; client: {client['first']} after {client['seconds']} s"

    @classmethod
    def judged(cls, plain, meshed):
        if plain["end"] is None or plain["client"]["first"] != "answer":
            return not_tried("the half-closed connection is not answered without the mesh")
        if meshed["end"] is None or meshed["end"] > cls.GONE_WITHIN:
            return differs(f"the server does not see within {cls.GONE_WITHIN} s that its caller has left")
        if meshed["client"]["first"] == "answer" and meshed["client"]["answer"].startswith("HTTP/1.1 200"):
            return SAME
        return named(cls.number)


ROWS = [KeptConnection, KeptConnectionOutside, DeadAddress, ConnectOnly, HalfClose]
