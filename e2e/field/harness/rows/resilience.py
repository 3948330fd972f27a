"""Resilience: rows 21, 25, 27, 36."""

import concurrent.futures
import time

from ..cluster import PYTHON, SETTLED, Failure, node, policy, server, service
from ..verdict import SAME, differs, named, not_tried


class Slower:
    number = 21
    what = "an asynchronous application under `overload`, whose calls go from 100 ms to 2 s at 30 calls a second"
    alone = True
    RATE, SECONDS, STEP = 30, 60, 15
    # Share of refusals behind the step, and how long there may be any.
    REFUSED, SETTLES = 0.05, 20

    @classmethod
    def tried(cls, side):
        side.apply(node("r21", "later", 8080), service("r21", [("http", 8080, 8080)]))
        if side.meshed:
            side.apply(policy("r21", overload={}))
        side.ready("r21")
        side.answers("http://r21:8080/")
        time.sleep(SETTLED)
        return side.call("rate", "r21", 8080, cls.RATE, cls.SECONDS, "/?ms=100", cls.STEP, "/?ms=2000",
                         timeout=cls.SECONDS + 60)

    @classmethod
    def counted(cls, result):
        """Calls behind the step, those that failed, and those that failed when all had settled."""
        behind = result["seconds"][cls.STEP:]
        bad = [sum(second.values()) - second.get("200", 0) for second in behind]
        return sum(sum(second.values()) for second in behind), sum(bad), sum(bad[cls.SETTLES:])

    @classmethod
    def shown(cls, result):
        calls, bad, late = cls.counted(result)
        return f"{bad} of {calls} calls behind the step failed, {late} of them later than {cls.SETTLES} s"

    @classmethod
    def judged(cls, plain, meshed):
        if cls.counted(plain)[1]:
            return not_tried("calls fail without the mesh")
        calls, bad, late = cls.counted(meshed)
        if late:
            return differs(f"calls are refused later than {cls.SETTLES} s behind the step")
        return SAME if bad <= calls * cls.REFUSED else differs("an application that is slower counts as full")


class OneOfThree:
    """Two pods that serve, and one that does something else; how many of the calls are bad."""

    CALLS = 120

    @classmethod
    def tried(cls, side):
        name = f"r{cls.number}"
        chosen = {"group": name}
        side.apply(server(f"{name}-good", "http", 8080, replicas=2, labels=chosen))
        side.apply(service(name, [("http", 8080, 8080)], selector=chosen))
        side.ready(f"{name}-good")
        side.answers(f"http://{name}:8080/")
        side.apply(server(f"{name}-bad", cls.manner, 8080, labels=chosen))
        side.ready(f"{name}-bad")
        side.settled(name, 3)
        return side.call("many", name, 8080, cls.CALLS)

    @staticmethod
    def shown(result):
        return f"{result['bad']} of {result['calls']} calls bad"

    @classmethod
    def judged(cls, plain, meshed):
        # A third of them, give or take four deviations.
        if not 20 <= plain["bad"] <= 60:
            return not_tried("without the mesh not a third of the calls is bad")
        if meshed["bad"] * 2 > plain["bad"]:
            return differs("the instance draws as many calls, though the manual says otherwise")
        return named(cls.number) if meshed["bad"] < plain["bad"] else SAME


class Truncates(OneOfThree):
    number = 25
    what = "one of three pods sends a head, 3 of 1 000 bytes and a reset"
    manner = "truncate"


class Busy(OneOfThree):
    number = 36
    what = "one of three pods answers 429 with `retry-after: 1`"
    manner = "busy"


class StandsStill:
    number = 27
    what = "both proxies stand still for 12 s (SIGSTOP), while 20 answers are on their way between them"
    alone = True
    # A silent peer is abandoned after 10 s, so one that ran meanwhile would have a right to it.
    STREAMS, STOPPED = 20, 12
    PODS = ("r27", "r27-client")

    @classmethod
    def tried(cls, side):
        # Processes are seen and signalled by root in the pod's own container.
        more = {"shareProcessNamespace": True, "security": {"runAsUser": 0}}
        side.apply(server("r27", "stream", 8080, **more), service("r27", [("http", 8080, 8080)]),
                   server("r27-client", "http", 8080, **more))
        side.ready(*cls.PODS)
        side.settled("r27", 1)
        with concurrent.futures.ThreadPoolExecutor(1 + len(cls.PODS)) as pool:
            streams = pool.submit(side.call, "streams", "r27", 8080, cls.STREAMS, timeout=120, client="r27-client")
            time.sleep(SETTLED)
            stopped = sum(pool.map(lambda name: cls.stop(side, name), cls.PODS)) if side.meshed else 0
            return streams.result() | {"stopped": stopped}

    @classmethod
    def stop(cls, side, name):
        done = side.attempt("exec", f"deployment/{name}", "-c", "app", "--", PYTHON, "/field/processes.py",
                            "weft-proxy", "STOP", str(cls.STOPPED), "CONT", timeout=cls.STOPPED + 30)
        if done.returncode != 0 or not done.stdout.strip().isdigit():
            raise Failure(f"the proxy of {name} was not stopped: {done.stderr.strip()[-200:]}")
        return int(done.stdout)

    @staticmethod
    def shown(result):
        return f"{result['bad']} of {result['calls']} answers broken; processes stopped: {result['stopped']}"

    @classmethod
    def judged(cls, plain, meshed):
        if plain["bad"]:
            return not_tried("answers break without the mesh")
        if meshed["stopped"] < len(cls.PODS):
            return not_tried("a proxy was not stopped")
        return SAME if not meshed["bad"] else differs("a proxy that was not scheduled calls its peer dead")


ROWS = [Slower, Truncates, StandsStill, Busy]
