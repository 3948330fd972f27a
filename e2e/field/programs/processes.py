"""Signals the processes of a name, in a pod that shares them: processes.py NAME SIGNAL [SECONDS CONT].

Prints how many there were. With SECONDS, CONT follows after as many.
"""

import os
import pathlib
import signal
import sys
import time


def named(name):
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "comm").read_text().strip() == name:
                found.append(int(folder.name))
        except OSError:
            # It has ended meanwhile.
            continue
    return found


def main():
    name, first, *more = sys.argv[1:]
    found = named(name)
    for pid in found:
        os.kill(pid, signal.Signals["SIG" + first])
    if more:
        time.sleep(float(more[0]))
        for pid in found:
            os.kill(pid, signal.Signals["SIG" + more[1]])
    print(len(found))


if __name__ == "__main__":
    main()
