"""What both measures share: a copy of the tree, commands that end with this process, tables."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
TARGET = os.path.join(ROOT, "target")
# Seconds that a command has to end by itself after SIGTERM.
GRACE = 4

# The command that runs now, in a process group of its own.
running = None


def say(text):
    print(text, file=sys.stderr, flush=True)


def end_with_signals():
    """Ctrl-C and SIGTERM end the running command with all that it started, then this process."""

    def ended(number, _frame):
        # What is ended now must not be taken for a result.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        kill_running()
        say("interrupted; the next run goes on from here")
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended)


def kill_running():
    if running is None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(running.pid, number)
            running.wait(GRACE)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            pass


def command(arguments, seconds=None, keeps_group=False, **options):
    """Runs it; returns its status and standard output. Status None: it took too long.

    `keeps_group`: what it leaves running stays, as the programs of a cluster.
    """
    global running
    running = subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, start_new_session=True, text=True, errors="replace", **options
    )
    try:
        output, _ = running.communicate(timeout=seconds)
        return running.returncode, output
    except subprocess.TimeoutExpired:
        kill_running()
        try:
            return None, running.communicate(timeout=GRACE)[0] or ""
        except subprocess.TimeoutExpired:
            return None, ""
    finally:
        # A test that ended may have left programs in its group.
        if not keeps_group:
            try:
                os.killpg(running.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        running = None


def files_of_tree():
    """What git knows or would add, as paths below the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout
    return sorted({path for path in listed.split("\0") if path and os.path.lexists(os.path.join(ROOT, path))})


def content(path):
    if os.path.islink(path):
        return os.readlink(path).encode()
    with open(path, "rb") as file:
        return file.read()


def hash_of_tree():
    """Without this folder, which changes no result."""
    whole = hashlib.sha256()
    for path in files_of_tree():
        if path.startswith("e2e/breaks/"):
            continue
        data = content(os.path.join(ROOT, path))
        whole.update(f"{path}\0{len(data)}\0".encode() + data)
    return whole.hexdigest()


def copy_tree(tree):
    """Makes `tree` the same as the root. What is the same keeps its time, for cargo."""
    wanted = files_of_tree()
    for path in wanted:
        source, copy = os.path.join(ROOT, path), os.path.join(tree, path)
        if os.path.lexists(copy) and os.path.islink(copy) == os.path.islink(source) and content(copy) == content(source):
            continue
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        if os.path.lexists(copy):
            os.remove(copy)
        shutil.copyfile(source, copy, follow_symlinks=False)
        if not os.path.islink(source):
            shutil.copymode(source, copy)
    wanted = set(wanted)
    for folder, folders, files in os.walk(tree):
        folders[:] = [name for name in folders if os.path.relpath(os.path.join(folder, name), tree) != "target"]
        for name in files:
            path = os.path.join(folder, name)
            if os.path.relpath(path, tree) not in wanted:
                os.remove(path)


def read_table(path):
    """Rows by their first column, without the heading."""
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t") for line in file if line.strip()]
    return {row[0]: row for row in lines[1:]}


def write_table(path, heading, rows):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = path + ".part"
    with open(part, "w", encoding="utf-8") as file:
        for row in [heading, *rows]:
            file.write("\t".join(" ".join(str(cell).split()) for cell in row) + "\n")
    os.replace(part, path)


def show(rows, results):
    """A table, and how many there are of each result, which stands second in a row."""
    widths = [max((len(str(row[at])) for row in rows), default=0) for at in range(len(rows[0]) if rows else 0)]
    for row in rows:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())
    print(", ".join(f"{sum(row[1] == result for row in rows)} {result}" for result in results))


def compare(before, rows, noticed=("caught",)):
    """Prints what was noticed by an older table and is not by the new one; returns how many."""
    older, now = read_table(before), {row[0]: row for row in rows}
    lost, unknown = [], 0
    for name, row in older.items():
        result = now[name][1] if name in now else "gone"
        if row[1] not in noticed or result in noticed:
            continue
        if result == "not-run":
            unknown += 1
        else:
            lost.append((name, result, row[-1]))
    print(f"{len(lost)} noticed in {before} and not now, {unknown} not run now")
    for name, result, what in lost:
        print(f"  {name}: {result}: {what}")
    return len(lost)
