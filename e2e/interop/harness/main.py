"""Tries every row in three places: without a mesh, on a declared port, on an undeclared one;
then servers that leave (leaving.py) and calls that are refused (refusals.py)."""

import argparse
import concurrent.futures
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from . import leaving, page, place, refusals, rows
from .row import judge, try_row

PLACES = ("direct", "declared", "undeclared")
# Seconds that the trials of the short form take at most. What was to be installed and built
# has been by then; the trials are as many wherever they run, and take three minutes on two
# cores that nothing else uses.
SHORT_WITHIN = 600
# The same for a run of every row.
LONG_WITHIN = 1200


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="the rows of `make test`")
    parser.add_argument("--all", action="store_true", help="a row that cannot be tried fails the run")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--client", default="", help="clients whose name holds this")
    parser.add_argument("--calls", type=int, default=int(os.environ.get("CALLS", 0)), help="calls of each load")
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--stand-in", required=True)
    parser.add_argument("--programs", required=True, help="folder with what was built and installed")
    parser.add_argument("--folder", required=True, help="logs and transcripts")
    parser.add_argument("--page", help="where the table is written")
    return parser.parse_args()


class Chosen:
    """What this run tries, and `missing`: what it cannot, with the reason."""

    def __init__(self, options):
        programs = pathlib.Path(options.programs)
        every, self.missing = rows.choose(programs, options.short, options.calls)
        refused, lacking = rows.present([row for row in refusals.rows(programs) if row.short or not options.short])
        left, lacking_too = ([], []) if options.short else leaving.trials(programs)
        self.missing += lacking + lacking_too
        self.rows = [row for row in every if options.only in row.name]
        self.refused = [row for row in refused if options.only in row.name]
        self.left = [one for one in left if options.only in f"leaving, {one.name}"]
        if not (self.rows or self.refused or self.left):
            sys.exit(f"no row is called {options.only}")
        self.declared = {one.port: one.declared for one in [*self.rows, *self.left]}


def main():
    options = parse()
    began = time.monotonic()
    place.remove_what_dead_runs_left()
    folder = pathlib.Path(options.folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Some servers give their rights away and must still find their files, wherever the checkout is.
    inner = pathlib.Path(tempfile.mkdtemp(prefix="weft-interop-"))
    inner.chmod(0o755)
    chosen = Chosen(options)
    places, refused, left = [], [], []
    try:
        for name in PLACES if chosen.rows or chosen.left else ():
            proxy = None if name == "direct" else options.proxy
            ports = chosen.declared if name == "declared" else {}
            places.append(place.Place(name, inner / name, proxy, options.stand_in, ports))
        results, complaints = try_rows(chosen.rows, places, options, folder)
        left, wrong = leaving.run(chosen.left, places)
        complaints += wrong
        if left:
            complaints += [said for where in places for said in where.complaints()]
        refused, wrong = refusals.run(chosen.refused, options, inner)
        complaints += wrong
        for one in refused:
            tell(one, folder)
    finally:
        for where in places:
            where.close()
        for log in inner.glob("*/*.log"):
            shutil.copy(log, folder / f"{log.parent.name}-{log.name}")
        shutil.rmtree(inner, ignore_errors=True)
    took = time.monotonic() - began
    complaints += too_long(took, options)
    if options.page:
        more = refusals.section(refused) + leaving.section(left)
        pathlib.Path(options.page).write_text(page.write(results, chosen.rows, chosen.missing, f"weft-proxy {commit(options.proxy)}", took, more))
    finish([*results, *refused], complaints, chosen.missing, took, options)


def try_rows(chosen, places, options, folder):
    """Each row in all places, and how what others saw differs from what was seen directly."""
    results, complaints = [], []
    # The places wait more than they work; but a load would disturb the others.
    with concurrent.futures.ThreadPoolExecutor(len(PLACES)) as pool:
        for row in chosen:
            tries = [pool.submit(try_row, row, where, options.client) for where in places]
            concurrent.futures.wait(tries)
            failed = [str(one.exception()) for one in tries if one.exception()]
            if failed:
                # The others are worth trying all the same.
                complaints += [f"{row.name}: {said}" for said in failed]
                continue
            direct, *others = [one.result() for one in tries]
            for there in others:
                for one, other in zip(direct, there, strict=True):
                    judge(one, other)
                    results.append(other)
                    tell(other, folder)
            results += direct
            found = [said for where in places for said in where.complaints()]
            if found:
                complaints += [f"{row.name}: {said}" for said in found]
                break
    return results, complaints


def too_long(took, options):
    """Of whole runs: some rows alone, or more calls than the harness makes by itself, may take as long as they like."""
    if options.only or options.client or options.calls:
        return []
    name, within = ("the short form", SHORT_WITHIN) if options.short else ("all rows", LONG_WITHIN)
    return [f"the trials of {name} took {took:.0f} s, more than {within}"] if took > within else []


def finish(results, complaints, missing, took, options):
    unnamed = [one for one in results if one.difference]
    for said in complaints:
        print(f"FAILED {said}")
    for one in missing:
        print(f"{'FAILED' if options.all else ''} not tried: {one}".lstrip())
    tried = len([one for one in results if one.place != "direct"])
    print(f"{tried} trials through the mesh in {took:.0f} s, {len(unnamed)} with unnamed differences, "
          f"{len(missing)} rows not tried")
    sys.exit(1 if unnamed or complaints or (options.all and missing) else 0)


def commit(proxy):
    """What was tried: the checkout, and the program itself, which may be older."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=pathlib.Path(__file__).parent)
    return f"of the checkout {done.stdout.strip() or 'unknown'}, program {program(proxy)}"


def program(proxy):
    return hashlib.sha256(pathlib.Path(proxy).read_bytes()).hexdigest()[:8]


def tell(one, folder):
    state = "DIFFERS" if one.difference else "same, but named" if one.named else "same"
    print(f"{state:17} {one.row.name:18} {one.client.name:34} {one.place:11} {one.seconds:5.1f} s", flush=True)
    safe = "".join(letter if letter.isalnum() else "-" for letter in f"{one.row.name}-{one.client.name}-{one.place}")
    (folder / f"{safe}.txt").write_text(one.transcript)
    if one.difference:
        print("    " + "\n    ".join(one.difference.splitlines()[:40]), flush=True)


if __name__ == "__main__":
    main()
