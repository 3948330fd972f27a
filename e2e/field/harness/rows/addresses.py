"""Who sees whose address: rows 2, 17, 19."""

import ipaddress
import pathlib
import time

from ..cluster import PYTHON, READY, Failure, Side, deployment, pod, server, service, split, started
from ..verdict import SAME, differs, named, not_tried

REDIS = ["/usr/bin/redis-server", "--save", "", "--dir", "/tmp", "--protected-mode", "no"]


class AddressAgain:
    number = 2
    what = "a kept connection to a pod of a headless Service, whose address another account's pod gets"
    # Else a pod of another row takes the address.
    alone = in_turn = local = True
    OTHER = "r2-other"
    TRIES = 5
    # Where the local cluster's nodes keep the address that they gave last; the next one is given next.
    GIVEN = "/var/lib/weft/cluster/{node}/addresses/weft-pods{number}/last_reserved_ip.0"

    @classmethod
    def tried(cls, side):
        # A namespace of its own, with the programs, for the pod that comes next.
        other = Side(side.cluster, f"{side.namespace}-other", side.meshed)
        other.make_namespace()
        other.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "programs"},
                     "data": side.json("get", "configmap", "programs")["data"]})
        side.apply(server("r2", "http", 8080, grace=10), service("r2", [("http", 8080, 8080)], headless=True))
        side.ready("r2")
        side.answers("http://r2:8080/")
        old = side.pods("r2")[0]
        with side.calling("keep", "r2", 8080) as client:
            side.kubectl("rollout", "restart", "deployment/r2")
            side.ready("r2")
            name = old["metadata"]["name"]
            side.until(READY, f"the end of {name}", lambda: side.attempt("get", "pod", name).returncode != 0)
            cls.give_again(other, old["status"]["podIP"], old["spec"]["nodeName"])
            return (result := client.finish()) | {"strange": result["names"].get(cls.OTHER, 0)}

    @classmethod
    def give_again(cls, other, address, node):
        given = pathlib.Path(cls.GIVEN.format(node=node, number=node.removeprefix("node")))
        before = str(ipaddress.ip_address(address) - 1)
        for _ in range(cls.TRIES):
            # A pod of another row may come between.
            given.write_text(before, encoding="ascii")
            other.apply(pod(cls.OTHER, [PYTHON, "/field/serve.py", "http", "8080"], port=8080, nodeName=node))
            other.kubectl("wait", "--for=condition=Ready", f"--timeout={READY}s", f"pod/{cls.OTHER}", timeout=READY + 30)
            if other.json("get", "pod", cls.OTHER)["status"]["podIP"] == address:
                return
            other.kubectl("delete", "pod", cls.OTHER)
        raise Failure(f"{other.namespace}: no pod was given {address}")

    @staticmethod
    def shown(result):
        return (f"{result['strange']} calls arrived at the stranger, {result['last_bad']} of the last {result['last']} bad, "
                f"{result['connects'] - 1} reconnects")

    @staticmethod
    def judged(plain, meshed):
        if plain["strange"] or plain["last_bad"] > 2 or plain["last"] < 50:
            return not_tried("calls fail without the mesh")
        if meshed["strange"]:
            return differs("requests of a kept connection arrived at the next owner of its address")
        return SAME if meshed["last"] >= 50 and meshed["last_bad"] <= 2 else differs("calls fail or hang")


class CallersAddress:
    number = 17
    what = "lists of addresses of nginx and PostgreSQL, and Redis Sentinel"
    # Sentinel looks every 10 s.
    FOUND_WITHIN = 40

    @classmethod
    def tried(cls, side):
        client = side.pods("client")[0]["status"]["podIP"]
        master = {"group": "r17-redis"}
        side.apply(
            started("r17-nginx", 8080, "nginx-allow", client),
            service("r17-nginx", [("http-friend", 8080, 8080), ("http-own", 8081, 8081)]),
            started("r17-postgres", 5432, "postgres", client), service("r17-postgres", [("tcp-postgres", 5432, 5432)]),
            deployment("r17-redis", REDIS, port=6379, labels=master),
            service("r17-redis", [("tcp-redis", 6379, 6379)], selector=master),
            started("r17-replica", 6379, "replica", "r17-redis"),
            started("r17-announced", 6379, "replica", "r17-redis", "announced"),
        )
        side.ready("r17-nginx", "r17-postgres", "r17-redis", "r17-replica", "r17-announced")
        # It ends where the name of the master is not known.
        side.apply(started("r17-sentinel", 26379, "sentinel", "r17-redis"),
                   service("r17-sentinel", [("tcp-sentinel", 26379, 26379)]))
        side.ready("r17-sentinel")
        return {"nginx": cls.nginx(side), "postgres": cls.postgres(side), "sentinel": cls.sentinel(side)}

    @staticmethod
    def nginx(side):
        urls = {"friend": "http://r17-nginx:8080/", "own": "http://r17-nginx:8081/"}
        side.until(READY, "an answer of r17-nginx", lambda: side.curl(urls["own"], seconds=3)["status"] in (200, 403))
        return {key: side.curl(url)["status"] for key, url in urls.items()}

    @staticmethod
    def postgres(side):
        def admitted(user):
            url = f"postgresql://{user}:{user}@r17-postgres/postgres?connect_timeout=5"
            psql = f"/usr/lib/postgresql/*/bin/psql '{url}' -Atc 'select 1'"
            return side.inside("/bin/sh", "-c", psql).stdout.strip() == "1"

        side.until(READY, "a login by password at r17-postgres", lambda: admitted("guest"))
        return {user: admitted(user) for user in ("friend", "own", "guest")}

    @classmethod
    def sentinel(cls, side):
        replicas = {name: side.pods(f"r17-{name}")[0]["status"]["podIP"] for name in ("replica", "announced")}
        limit = time.monotonic() + cls.FOUND_WITHIN
        while True:
            words = side.inside("/usr/bin/redis-cli", "-h", "r17-sentinel", "-p", "26379", "sentinel", "replicas",
                                "main").stdout.split()
            seen = {words[at + 1] for at, word in enumerate(words[:-1]) if word == "ip"}
            found = {name: address in seen for name, address in replicas.items()}
            if all(found.values()) or time.monotonic() > limit:
                return found
            time.sleep(1)

    @staticmethod
    def shown(result):
        lists = ", ".join(f"{key} {value}" for key, value in result["nginx"].items())
        users = ", ".join(f"{key} {'in' if value else 'refused'}" for key, value in result["postgres"].items())
        found = ", ".join(f"{key} {'found' if value else 'not found'}" for key, value in result["sentinel"].items())
        return f"nginx: {lists}; PostgreSQL: {users}; Sentinel: {found}"

    @classmethod
    def judged(cls, plain, meshed):
        works = plain["nginx"] == {"friend": 200, "own": 403}
        works = works and plain["postgres"] == {"friend": True, "own": False, "guest": True}
        if not works or not all(plain["sentinel"].values()):
            return not_tried("addresses decide nothing without the mesh")
        if meshed == plain:
            return SAME
        if not meshed["postgres"]["guest"] or not meshed["sentinel"]["announced"]:
            return differs("the manual's way out does not help")
        return named(cls.number)


class ByPodAddress:
    number = 19
    what = "a TrafficSplit that leads all calls to other pods, called by the Service and by a pod's address"

    @staticmethod
    def tried(side):
        for name in ("r19", "r19-b"):
            side.apply(server(name, "http", 8080), service(name, [("http", 8080, 8080)]))
        if side.meshed:
            side.apply(split("r19", r19_b=1))
        side.ready("r19", "r19-b")
        side.settled("r19", 1)
        side.answers("http://r19:8080/")
        address = side.pods("r19")[0]["status"]["podIP"]
        names = {way: next(iter(side.call("many", host, 8080, 1)["names"]), "")
                 for way, host in (("service", "r19"), ("pod", address))}
        # Names of pods are NAME-HASH-SUFFIX.
        result = {way: name.rsplit("-", 2)[0] for way, name in names.items()}
        explained = ""
        if side.meshed:
            explained = side.cluster.run_weft("explain", "deploy/client", "deploy/r19", "GET", "/", "-n", side.namespace).stdout
        return result | {"said": "past every TrafficSplit" in explained, "explained": explained[-600:]}

    @staticmethod
    def shown(result):
        said = "; weft explain says that no split moves the latter" if result["said"] else ""
        return f"by the Service: {result['service']}, by the pod's address: {result['pod']}{said}"

    @classmethod
    def judged(cls, plain, meshed):
        if (plain["service"], plain["pod"]) != ("r19", "r19"):
            return not_tried("the pod does not answer without the mesh")
        if meshed["service"] != "r19-b":
            return differs("the split does not hold for the Service")
        if meshed["pod"] == "r19-b":
            return SAME
        return named(cls.number) if meshed["said"] else differs("weft explain does not say that no split moves such a call")


ROWS = [AddressAgain, CallersAddress, ByPodAddress]
