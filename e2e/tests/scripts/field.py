"""What e2e/field makes of results, and the servers and clients that its rows run."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
FIELD = ROOT / "e2e/field"
sys.path.insert(0, str(FIELD))
sys.path.insert(0, str(FIELD / "programs"))
os.environ["SLOW"] = os.environ["STREAM"] = "0.5"

import call  # noqa: E402
import serve  # noqa: E402
from harness import main, verdict  # noqa: E402
from harness.rows import ROWS  # noqa: E402

BY_NUMBER = {row.number: row for row in ROWS}


def kept(bad):
    counts = {"calls": 250, "bad": bad, "connects": 2, "last": 100, "last_bad": bad, "outcomes": {}}
    return {"http": counts, "grpc": counts}


def grpc_kept(bad):
    return {"http": kept(1)["http"], "grpc": kept(bad)["grpc"]}


def strange(calls):
    return kept(1)["http"] | {"strange": calls}


def two_names(https, slowest):
    return {"http": 10, "https": https, "slowest": slowest}


def foreign(tls, raw):
    keys = ("status", "exit", "seconds")
    return {"tls": dict(zip(keys, tls)), "raw": dict(zip(("first", "seconds", "answer"), raw))}


def drained(drain, local):
    return {"drain": drain, "why": "", "storage": not drain, "evicted": True, "local": local}


def quota(starts, reported):
    return {"starts": starts, "event": reported, "check": reported, "mended": True}


def connected(nc, first, seconds, status):
    return {"nc": nc, "bytes": {"first": first, "seconds": seconds, "answer": ""}, "http": status}


def half_closed(end, first, answer=""):
    return {"end": end, "client": {"first": first, "seconds": end or 15.0, "answer": answer}}


def broken(bad):
    return {"calls": 120, "bad": bad, "outcomes": {}}


def upgraded(good):
    return {"good": good, "calls": 5, "answers": {"200": good}}


def forwarded(target, added, connect):
    sent = {"status": "200", "target": "http://r7-up/page", "host": "r7-up", "added": "none"}
    http = sent | {"target": target, "added": added}
    return {"http": {"absolute": http, "connect": connect}, "undeclared": {"absolute": http, "connect": connect},
            "tcp": {"absolute": sent, "connect": 200}}


def killed(again, http):
    return {"again": again, "restarts": {"http": http, "exec": 0}}


def addressed(friend, own, guest, replica):
    return {"nginx": {"friend": friend, "own": own},
            "postgres": {"friend": friend == 200, "own": own == 200, "guest": guest},
            "sentinel": {"replica": replica, "announced": True}}


def called(service, said):
    return {"service": service, "pod": "r19", "said": said, "explained": ""}


def deleted(now, check):
    return {"pod": now, "namespace": now, "check": check, "pod_after": True, "namespace_after": check or now}


def by_second(seconds):
    return {"seconds": [{"200": good, refusal: bad} for good, bad, refusal in seconds]}


def slower(refused):
    return by_second([(30 - (refused if second >= 15 else 0), refused if second >= 15 else 0, "503") for second in range(60)])


def limited(good, offered, seconds):
    return by_second([(good, offered - good, "429")] * seconds)


def stopped(bad, count):
    return {"calls": 20, "bad": bad, "outcomes": {}, "stopped": count}


def paths(*other):
    """The first ones arrived otherwise."""
    sent = list(BY_NUMBER[8].PATHS)
    return {"answers": [*other, *sent[len(other):]]}


# By row: without the mesh; in it as it is to be; in it as it was once.
RESULTS = {
    1: (kept(1), kept(1), grpc_kept(100)),
    2: (strange(0), strange(0), strange(90)),
    3: (kept(1), kept(1), kept(100)),
    4: (two_names(10, 0.1), two_names(10, 0.2), two_names(0, 10.0)),
    5: (
        foreign((200, 0, 0.1), ("answer", 0.0, "N")),
        foreign((0, 35, 0.1), ("reset", 0.0, "")),
        foreign((0, 35, 10.0), ("end", 10.0, "")),
    ),
    6: (upgraded(5), upgraded(5), upgraded(0)),
    7: (
        forwarded("http://r7-up/page", "none", 200),
        forwarded("http://r7-up/page", "none", 0),
        forwarded("/page", "weft-client-id", 0),
    ),
    8: (paths(), paths(), paths("400", "/bucket/key")),
    9: (drained(True, []), drained(True, []), drained(False, ["weft-token"])),
    10: (broken(0), broken(0), broken(20)),
    11: ({"ready": True}, {"ready": True}, {"ready": False}),
    12: (quota(True, False), quota(False, True), quota(False, False)),
    13: ({"class": "Guaranteed"}, {"class": "Guaranteed"}, {"class": "Burstable"}),
    14: (killed(True, 0), killed(False, 1), {"again": False, "restarts": {"http": 1, "exec": 1}}),
    15: ({"own": 60}, {"own": 60}, {"own": 24}),
    16: ({"alike": 40, "bare": 40}, {"alike": 40, "bare": 40}, {"alike": 0, "bare": 0}),
    18: (connected(False, "refused", 0.0, 0), connected(True, "reset", 0.0, 503), connected(True, "silence", 20.0, 503)),
    17: (addressed(200, 403, True, True), addressed(403, 200, True, False), addressed(403, 200, False, False)),
    19: (called("r19", False), called("r19-b", True), called("r19-b", False)),
    20: (deleted(True, True), deleted(False, True), deleted(False, False)),
    21: (slower(0), slower(0), slower(9)),
    22: (limited(40, 40, 25), limited(20, 40, 25), limited(10, 40, 25)),
    23: (limited(15, 15, 30), limited(14, 15, 30), limited(11, 15, 30)),
    24: ({"one": 90, "four": 90}, {"one": 60, "four": 58}, {"one": 44, "four": 44}),
    25: (broken(40), broken(4), broken(40)),
    26: (
        half_closed(0.0, "answer", "HTTP/1.1 200 OK"),
        half_closed(2.1, "end"),
        half_closed(None, "answer", "HTTP/1.1 200 OK"),
    ),
    27: (stopped(0, 0), stopped(0, 2), stopped(20, 2)),
    36: (broken(40), broken(4), broken(40)),
}


def test_row_as_it_once_was_differs():
    assert sorted(RESULTS) == sorted(BY_NUMBER), "each row is judged here"
    for number, (plain, meshed, once) in RESULTS.items():
        row = BY_NUMBER[number]
        wanted = verdict.Kind.NAMED if number in verdict.NAMED else verdict.Kind.SAME
        assert row.judged(plain, meshed).kind is wanted, (number, row.judged(plain, meshed))
        assert row.judged(plain, once).kind is verdict.Kind.DIFFERS, (number, row.judged(plain, once))
        assert row.shown(plain) and row.shown(once), number


def test_row_that_fails_without_the_mesh_is_not_tried():
    for number, (plain, _, once) in RESULTS.items():
        if number in (12, 18, 20, 25, 36):
            # Their harm is in words, or it is the control's own result.
            continue
        assert BY_NUMBER[number].judged(once, plain).kind is verdict.Kind.NOT_TRIED, number


def test_line_that_the_manual_lost_is_no_longer_named():
    assert verdict.in_manual("Pigs on a port named http fly").kind is verdict.Kind.DIFFERS
    assert all(verdict.named(number).kind is verdict.Kind.NAMED for number in verdict.NAMED)


def test_forward_proxy_that_gets_connect_is_the_same():
    assert BY_NUMBER[7].judged(*[forwarded("http://r7-up/page", "none", 200)] * 2).kind is verdict.Kind.SAME


def test_rows_that_are_alone_come_behind_others_and_in_their_order():
    started = []
    rows = [Recorded(number, started) for number in (1, 20, 21, 4)]
    results = main.all_tried(rows, [True, False], time.monotonic(), 2)
    assert [result["row"] for result in results] == [1, 20, 21, 4]
    assert sorted(started[:4]) == [1, 1, 4, 4] and started[4:] == [21, 21, 20, 20], started


class Recorded:
    """A row that writes down when it is tried, with the kinds of a real one."""

    def __init__(self, number, started):
        self.number, self.what, self.started = number, "", started
        self.alone, self.last = (getattr(BY_NUMBER[number], kind, False) for kind in ("alone", "last"))

    def tried(self, side):
        self.started.append(self.number)
        return {"side": side}

    def shown(self, result):
        return str(result["side"])

    def judged(self, plain, meshed):
        return verdict.SAME


def test_calls_below_a_limit_that_are_all_served_are_the_same():
    assert BY_NUMBER[23].judged(*[limited(15, 15, 30)] * 2).kind is verdict.Kind.SAME


def test_foreign_cluster_keeps_its_mesh():
    assert not {2, 20} & {row.number for row in main.chosen("", external=True)}


def test_number_of_no_row_is_refused():
    assert [row.number for row in main.chosen("4, 1")] == [1, 4]
    try:
        main.chosen("99")
    except ValueError as error:
        assert "no row has the number 99" in str(error)
    else:
        raise AssertionError("row 99 was accepted")


def test_servers_of_rows_show_their_manners_to_clients():
    assert spoken("http", call.many, 2)["outcomes"] == {"200": 2}
    assert spoken("truncate", call.many, 2)["bad"] == 2
    assert spoken("raw", call.send_bytes, "0000000804d2162f")["answer"] == "N"
    assert spoken("slow", call.half)["answer"].startswith("HTTP/1.1 200")
    assert spoken("either", call.many, 1)["outcomes"] == {"200": 1}
    assert spoken("busy", call.many, 1)["outcomes"] == {"429": 1}
    assert spoken("stream", call.streams, 3)["bad"] == 0
    assert spoken("show", call.paths, *BY_NUMBER[8].PATHS)["answers"] == list(BY_NUMBER[8].PATHS)
    assert spoken("http", call.rate, 20, 1)["seconds"] == [{"200": 20}]
    assert spoken("http", call.upgrade, 1)["good"] == 0


def spoken(manner, client, *arguments):
    with serve.serve(manner, 0) as server:
        try:
            return client("127.0.0.1", server.server_address[1], *arguments)
        finally:
            server.shutdown()


def test_image_of_a_folder_is_the_same_from_the_same_files():
    with tempfile.TemporaryDirectory() as folder:
        digests = set()
        for name in ("one", "two"):
            root = pathlib.Path(folder, name)
            (root / "bin").mkdir(parents=True)
            (root / "bin/program").write_bytes(b"program")
            (root / "bin/program").chmod(0o755)
            (root / "bin/link").symlink_to("program")
            digests.add(subprocess.run(
                [ROOT / "e2e/images/pack", "--image", "weft.local/x:1", "--user", "1", "--root", root,
                 "--out", pathlib.Path(folder, f"{name}.tar")],
                capture_output=True, text=True, check=True).stdout)
        assert len(digests) == 1, digests
