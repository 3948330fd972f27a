"""Resilience: row 25."""

import time

from ..cluster import SETTLED, server, service
from ..verdict import SAME, differs, named, not_tried


class Truncates:
    number = 25
    what = "one of three pods sends a head, 3 of 1 000 bytes and a reset"
    CALLS = 120

    @classmethod
    def tried(cls, side):
        chosen = {"group": "r25"}
        side.apply(server("r25-good", "http", 8080, replicas=2, labels=chosen))
        side.apply(service("r25", [("http", 8080, 8080)], selector=chosen))
        side.ready("r25-good")
        side.answers("http://r25:8080/")
        side.apply(server("r25-bad", "truncate", 8080, labels=chosen))
        side.ready("r25-bad")
        side.until(30, "three endpoints of r25", lambda: len([
            endpoint for part in side.json("get", "endpointslices", "-l", "kubernetes.io/service-name=r25")["items"]
            for endpoint in part.get("endpoints") or () if endpoint["conditions"].get("ready")]) == 3)
        time.sleep(SETTLED)
        return side.call("many", "r25", 8080, cls.CALLS)

    @staticmethod
    def shown(result):
        return f"{result['bad']} of {result['calls']} calls broken"

    @classmethod
    def judged(cls, plain, meshed):
        # A third of them, give or take four deviations.
        if not 20 <= plain["bad"] <= 60:
            return not_tried("without the mesh not a third of the calls breaks")
        if meshed["bad"] * 2 > plain["bad"]:
            return differs("the instance is not ejected, though the manual says so")
        return named(cls.number) if meshed["bad"] < plain["bad"] else SAME


ROWS = [Truncates]
