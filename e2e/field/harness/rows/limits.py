"""Limits of a Service: rows 22, 23, 24. Without the mesh there are none, and each call is served."""

import concurrent.futures
import time

from ..cluster import SETTLED, policy, server, service, split
from ..verdict import SAME, differs, named, not_tried


def limit(name, requests, **more):
    return policy(name, rateLimits=[{"name": "limit", "requests": requests, **more}])


def served(result):
    """Calls by second that were served."""
    return [second.get("200", 0) for second in result["seconds"]]


def refused(result):
    return [second.get("429", 0) for second in result["seconds"]]


class TakenOut:
    number = 22
    what = "one of two pods is taken out of a Service by its label, 40 calls a second at a limit of 20"
    LIMIT, OFFERED, SECONDS = 20, 40, 25
    # The part of the other pod comes within 5 s.
    FROM = 12
    # A call more or less in each second, and the next one's.
    ALLOWED = 2

    @classmethod
    def tried(cls, side):
        chosen = {"group": "r22"}
        side.apply(server("r22", "http", 8080, replicas=2, labels=chosen),
                   service("r22", [("http", 8080, 8080)], selector=chosen))
        if side.meshed:
            side.apply(limit("r22", cls.LIMIT))
        side.ready("r22")
        side.settled("r22", 2)
        out = side.pods("r22")[0]["metadata"]["name"]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            calls = pool.submit(side.call, "rate", "r22", 8080, cls.OFFERED, cls.SECONDS, timeout=cls.SECONDS + 60)
            time.sleep(SETTLED)
            side.kubectl("label", "pod", out, "group-")
            return calls.result()

    @classmethod
    def rate(cls, result):
        late = served(result)[cls.FROM:]
        return sum(late) / len(late)

    @classmethod
    def shown(cls, result):
        return f"{cls.rate(result):.1f} calls a second served, from second {cls.FROM} on"

    @classmethod
    def judged(cls, plain, meshed):
        if cls.rate(plain) < cls.OFFERED * 0.9:
            return not_tried("calls are lost without the mesh")
        if abs(cls.rate(meshed) - cls.LIMIT) > cls.ALLOWED:
            return differs(f"not the limit of {cls.LIMIT} calls a second")
        return SAME


class BelowLimit:
    number = 23
    what = "15 calls a second below a limit of 20 for each caller, 4 pods, a TrafficSplit of 90 and 10"
    # Its callers keep an even pace, which rows beside it disturb on a small machine.
    alone = True
    LIMIT, OFFERED, SECONDS = 20, 15, 30
    FROM = 12
    # Of 15 to 56 % once, of 1 and 7 % in two runs since: chance brings a pod more or less for some seconds.
    REFUSED, NAMED = 0.02, 0.1

    @classmethod
    def tried(cls, side):
        chosen = {"group": "r23"}
        side.apply(service("r23", [("http", 8080, 8080)], selector=chosen))
        for name in ("r23-a", "r23-b"):
            side.apply(server(name, "http", 8080, replicas=2, labels=chosen), service(name, [("http", 8080, 8080)]))
        if side.meshed:
            side.apply(split("r23", r23_a=90, r23_b=10), limit("r23", cls.LIMIT, key={"type": "Caller"}))
        side.ready("r23-a", "r23-b")
        side.settled("r23", 4)
        return side.call("rate", "r23", 8080, cls.OFFERED, cls.SECONDS, timeout=cls.SECONDS + 60)

    @classmethod
    def share(cls, result):
        late = result["seconds"][cls.FROM:]
        return sum(refused(result)[cls.FROM:]) / sum(sum(second.values()) for second in late)

    @classmethod
    def shown(cls, result):
        calls = served(result) + refused(result)
        return f"{sum(refused(result))} of {sum(calls)} calls refused, from second {cls.FROM} on {cls.share(result):.0%}"

    @classmethod
    def judged(cls, plain, meshed):
        if sum(served(plain)) < cls.OFFERED * cls.SECONDS * 0.9:
            return not_tried("calls are lost without the mesh")
        if cls.share(meshed) <= cls.REFUSED:
            return SAME
        return named(cls.number) if cls.share(meshed) <= cls.NAMED else differs("calls below the limit are refused")


class PerMinute:
    number = 24
    what = "90 calls a minute at a limit of 60 per minute, of one pod and of four"
    LIMIT, OFFERED, ALLOWED = 60, 90, 3
    # Of the second minute, with what is late.
    SECONDS = 122
    PODS = {"one": 1, "four": 4}

    @classmethod
    def tried(cls, side):
        for name, pods in cls.PODS.items():
            side.apply(server(f"r24-{name}", "http", 8080, replicas=pods), service(f"r24-{name}", [("http", 8080, 8080)]))
            if side.meshed:
                side.apply(limit(f"r24-{name}", cls.LIMIT, per="1m"))
        side.ready(*(f"r24-{name}" for name in cls.PODS))
        for name, pods in cls.PODS.items():
            side.settled(f"r24-{name}", pods)
        with concurrent.futures.ThreadPoolExecutor(len(cls.PODS)) as pool:
            calls = {name: pool.submit(side.call, "rate", f"r24-{name}", 8080, cls.OFFERED / 60, cls.SECONDS,
                                       timeout=cls.SECONDS + 60) for name in cls.PODS}
            return {name: sum(served(one.result())[60:120]) for name, one in calls.items()}

    @staticmethod
    def shown(result):
        return ", ".join(f"{count} served by {name}" for name, count in result.items()) + " in the second minute"

    @classmethod
    def judged(cls, plain, meshed):
        if min(plain.values()) < cls.OFFERED - cls.ALLOWED:
            return not_tried("calls are lost without the mesh")
        wrong = [name for name, count in meshed.items() if abs(count - cls.LIMIT) > cls.ALLOWED]
        return differs(f"not the limit of {cls.LIMIT} calls a minute") if wrong else SAME


ROWS = [TakenOut, BelowLimit, PerMinute]
