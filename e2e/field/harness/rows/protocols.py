"""Ports that carry something else than their name says: rows 4 and 5."""

import time

from ..cluster import READY, SETTLED, nginx, server, service
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


ROWS = [TwoNames, ForeignBytes]
