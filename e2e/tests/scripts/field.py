"""What e2e/field makes of results, and the servers and clients that its rows run."""

import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
FIELD = ROOT / "e2e/field"
sys.path.insert(0, str(FIELD))
sys.path.insert(0, str(FIELD / "programs"))
os.environ["SLOW"] = "0.5"

import call  # noqa: E402
import serve  # noqa: E402
from harness import main, verdict  # noqa: E402
from harness.rows import ROWS  # noqa: E402

BY_NUMBER = {row.number: row for row in ROWS}


def kept(bad):
    return {"calls": 250, "bad": bad, "connects": 2, "last": 100, "last_bad": bad, "outcomes": {}}


def two_names(https, slowest):
    return {"http": 10, "https": https, "slowest": slowest}


def foreign(tls, raw):
    keys = ("status", "exit", "seconds")
    return {"tls": dict(zip(keys, tls)), "raw": dict(zip(("first", "seconds", "answer"), raw))}


def drained(drain, local):
    return {"drain": drain, "why": "", "storage": not drain, "evicted": True, "local": local}


def quota(starts, told):
    return {"starts": starts, "event": told, "check": told, "mended": True}


def connected(nc, first, seconds, status):
    return {"nc": nc, "bytes": {"first": first, "seconds": seconds, "answer": ""}, "http": status}


def half_closed(end, first, answer=""):
    return {"end": end, "client": {"first": first, "seconds": end or 15.0, "answer": answer}}


def broken(bad):
    return {"calls": 120, "bad": bad, "outcomes": {}}


# By row: without the mesh; in it as it is to be; in it as it was once.
RESULTS = {
    1: (kept(1), kept(1), kept(100)),
    3: (kept(1), kept(1), kept(100)),
    4: (two_names(10, 0.1), two_names(10, 0.2), two_names(0, 10.0)),
    5: (
        foreign((200, 0, 0.1), ("answer", 0.0, "N")),
        foreign((0, 35, 0.1), ("reset", 0.0, "")),
        foreign((0, 35, 10.0), ("end", 10.0, "")),
    ),
    9: (drained(True, []), drained(True, []), drained(False, ["weft-token"])),
    12: (quota(True, False), quota(False, True), quota(False, False)),
    13: ({"class": "Guaranteed"}, {"class": "Guaranteed"}, {"class": "Burstable"}),
    16: ({"alike": 40, "bare": 40}, {"alike": 40, "bare": 40}, {"alike": 0, "bare": 0}),
    18: (connected(False, "refused", 0.0, 0), connected(True, "reset", 0.0, 503), connected(True, "silence", 20.0, 503)),
    25: (broken(40), broken(4), broken(40)),
    26: (
        half_closed(0.0, "answer", "HTTP/1.1 200 OK"),
        half_closed(2.1, "end"),
        half_closed(None, "answer", "HTTP/1.1 200 OK"),
    ),
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
        if number in (12, 18, 25):
            # Their harm is in words, or it is the control's own result.
            continue
        assert BY_NUMBER[number].judged(once, plain).kind is verdict.Kind.NOT_TRIED, number


def test_line_that_the_manual_lost_is_no_longer_named():
    assert verdict.in_manual("Pigs on a port named http fly").kind is verdict.Kind.DIFFERS
    assert all(verdict.named(number).kind is verdict.Kind.NAMED for number in verdict.NAMED)


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
