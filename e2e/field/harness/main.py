"""Tries the rows in both namespaces, prints the results side by side, and fails when one differs.

KUBECONFIG names the cluster, and kubectl and helm are those of the path. The mesh is installed or upgraded as the end-to-end tests do it.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import sys
import tempfile
import time
import traceback

from .cluster import Cluster, Failure, Side, run
from .rows import ROWS
from .verdict import REPOSITORY, not_tried

NAMESPACES = {"plain": "field-plain", "meshed": "field-mesh"}
# Of rows that make namespaces of their own.
MORE = ("-quota", "-other", "-passing")
# Rows at a time, on two cores: most of a row waits.
AT_ONCE = 3
# A row that begins later is not tried. With what a row may take this is within 20 minutes.
BEGIN_WITHIN = 15 * 60
INSTALL = 240


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weft", required=True, type=pathlib.Path)
    parser.add_argument("--images", required=True, type=pathlib.Path, help="folder of the digests of the mesh's images")
    parser.add_argument("--folder", required=True, type=pathlib.Path, help="where results are left")
    parser.add_argument("--counts", type=pathlib.Path, help="files for e2e/run, without their endings")
    parser.add_argument("--only", default="", help="numbers of rows")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="rows at a time")
    parser.add_argument("--external", action="store_true", help="the cluster is not of this checkout")
    args = parser.parse_args()
    try:
        rows = chosen(args.only, args.external)
    except ValueError as error:
        sys.exit(f"error: {error}")
    cluster = Cluster(args.weft)
    sides = [Side(cluster, NAMESPACES["plain"], False), Side(cluster, NAMESPACES["meshed"], True)]
    started = time.monotonic()
    try:
        say("installing or upgrading the mesh")
        install(args.images)
        say("making the namespaces")
        delete(cluster)
        held = programs()
        both(lambda side: side.make(held), sides)
        results = all_tried(rows, sides, started, args.at_once)
    except Failure as failure:
        sys.exit(f"error: {failure}")
    finally:
        if not os.environ.get("KEEP_NAMESPACES"):
            delete(cluster, wait=False)
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    failed = sum(result["fails"] for result in results)
    if args.counts:
        count(args.counts, results, failed)
    print("row | plain | meshed | verdict", *(result["line"] for result in results), sep="\n")
    print(f"{len(results) - failed} rows are alike or named, {failed} are not; {round(time.monotonic() - started)} s")
    return 1 if failed else 0


def count(path, results, failed):
    """Each row as a test, for e2e/run."""
    times = []
    for result in results:
        name = f"row_{result['row']}"
        print(f"test {name} ... {'FAILED' if result['fails'] else 'ok'}")
        if result["fails"]:
            print(f"thread '{name}' panicked at {result['line']}")
        times.append({"program": "field", "test": name, "seconds": result["seconds"]})
    path.with_suffix(".json").write_text(json.dumps(times), encoding="utf-8")
    path.with_suffix(".counts").write_text(f"{len(results) - failed} {failed}\n", encoding="ascii")


def chosen(only, external=False):
    """A user's own cluster keeps its mesh, and gives out addresses as it likes."""
    numbers = [int(word) for word in only.replace(",", " ").split()]
    here = [row for row in ROWS if not external or not is_a("local", row)]
    known = {row.number for row in here}
    if unknown := [number for number in numbers if number not in known]:
        raise ValueError(f"no row has the number {unknown[0]}; there are {', '.join(map(str, sorted(known)))}")
    return [row for row in here if not numbers or row.number in numbers]


def all_tried(rows, sides, started, at_once):
    """Results in the order of rows: several at a time, then each that is to be alone, the last one behind these."""
    def one(row):
        result = tried(row, sides, started)
        say(result["line"])
        return row.number, result

    alone = sorted((row for row in rows if is_a("alone", row)), key=lambda row: is_a("last", row))
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        results = dict(pool.map(one, [row for row in rows if row not in alone]))
    results |= dict(map(one, alone))
    return [results[row.number] for row in rows]


def is_a(kind, row):
    return getattr(row, kind, False)


def tried(row, sides, started):
    """Results of both sides, and what they come to."""
    start = time.monotonic()
    plain = meshed = None
    if start - started > BEGIN_WITHIN:
        verdict = not_tried("no time was left")
    else:
        say(f"row {row.number}: {row.what}")
        attempts = (attempt(row, side) for side in sides) if is_a("in_turn", row) else both(
            lambda side: attempt(row, side), sides)
        plain, meshed = attempts
        failures = [one for one in (plain, meshed) if isinstance(one, Failure)]
        verdict = not_tried(" ".join(str(failures[0]).split())) if failures else row.judged(plain, meshed)
    words = [shown(row, one) for one in (plain, meshed)]
    return {
        "row": row.number, "what": row.what, "verdict": str(verdict), "fails": verdict.fails,
        "plain": plain if isinstance(plain, dict) else str(plain),
        "meshed": meshed if isinstance(meshed, dict) else str(meshed),
        "seconds": round(time.monotonic() - start, 1),
        "line": f"{row.number} {row.what} | {words[0]} | {words[1]} | {verdict}",
    }


def attempt(row, side):
    try:
        return row.tried(side)
    except Failure as failure:
        return failure
    except Exception as error:
        # Such as a list without the pod that was ready a moment before: the other rows go on.
        traceback.print_exc()
        return Failure(f"{side.namespace}: {type(error).__name__}: {error}")


def shown(row, result):
    return row.shown(result) if isinstance(result, dict) else "-"


def both(what, sides):
    """At the same time, so that both have the same machine."""
    with concurrent.futures.ThreadPoolExecutor(len(sides)) as pool:
        return list(pool.map(what, sides))


def programs():
    """What is mounted at /field in pods: servers, clients, and a certificate of two days."""
    held = {file.name: file.read_text(encoding="utf-8")
            for file in (REPOSITORY / "e2e/field/programs").iterdir() if file.is_file()}
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = pathlib.Path(folder, "tls.key"), pathlib.Path(folder, "tls.crt")
        done = run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=field", "-keyout", key, "-out", certificate], None, 30)
        if done.returncode != 0:
            raise Failure(f"openssl makes no certificate: {done.stderr.strip()[-200:]}")
        held |= {file.name: file.read_text(encoding="ascii") for file in (key, certificate)}
    return held


def install(images):
    """As e2e/src/harness/mesh.rs does it."""
    registry = os.environ.get("WEFT_IMAGE_REGISTRY", "weft.local")
    sets = [f"image.registry={registry}", "image.tag=0.1.0"]
    # Images keep their tag while their content changes, so the pods' template changes with it.
    sets += [f"{part}.podAnnotations.content={content_of(images / f'{part}.digest')}" for part in ("controller", "injector")]
    command = ["helm", "upgrade", "--install", "weft", REPOSITORY / "charts/weft", "-n", "weft-system",
               "--create-namespace", "--wait", "--timeout", f"{INSTALL}s"]
    for one in sets:
        command += ["--set-string", one]
    limit = time.monotonic() + INSTALL
    while True:
        done = run(command, None, INSTALL + 60)
        if done.returncode == 0:
            return
        busy = any(words in done.stderr for words in ("another operation", "release: already exists"))
        if not busy or time.monotonic() > limit:
            raise Failure(f"the mesh cannot be installed: {done.stderr.strip()[-600:]}")
        time.sleep(2)


def content_of(digest):
    """`none` when the image was packed elsewhere."""
    return f"f{hashlib.sha256(digest.read_bytes()).hexdigest()[:16]}" if digest.exists() else "none"


def delete(cluster, wait=True):
    names = [name + more for name in NAMESPACES.values() for more in ("", *MORE)]
    words = ["delete", "namespace", *names, "--ignore-not-found", f"--wait={str(wait).lower()}"]
    if wait:
        cluster.kubectl(*words, "--timeout=120s", timeout=150)
    else:
        cluster.attempt(*words)


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
