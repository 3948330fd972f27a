"""Clients that see more than curl does; each prints one line of JSON.

call.py keep HOST PORT       one kept connection, called every 100 ms until 10 s after a line on
                             standard input, 90 s at most; counts those 10 s
call.py many HOST PORT N     N calls, a connection each
call.py bytes HOST PORT HEX  sends these bytes, and waits for what comes first
call.py half HOST PORT       a request, and the end of the sending direction behind it
"""

import collections
import http.client
import json
import socket
import sys
import threading
import time

PAUSE = 0.1
LAST = 10.0
MOST = 90.0
# Of one call.
PATIENCE = 5.0
# Longer than a foreign hang of 10 s, and than a slow server.
LONG = 20.0


class Connection(http.client.HTTPConnection):
    """Counts how often it connects; after a failure it looks the name up anew, as clients do."""

    connects = 0

    def connect(self):
        self.connects += 1
        super().connect()


def keep(host, port):
    connection = Connection(host, port, timeout=PATIENCE)
    marked = mark()
    begun, end, calls = time.monotonic(), None, []
    while True:
        now = time.monotonic()
        if end is None and marked.is_set():
            end = now + LAST
        if now >= (end or begun + MOST):
            break
        calls.append((now, outcome(connection)))
        time.sleep(max(0.0, now + PAUSE - time.monotonic()))
    last = [what for at, what in calls if end and at >= end - LAST]
    return {
        "calls": len(calls),
        "bad": sum(what != "200" for _, what in calls),
        "connects": connection.connects,
        "last": len(last),
        "last_bad": sum(what != "200" for what in last),
        "outcomes": collections.Counter(what for _, what in calls),
    }


def mark():
    marked = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), marked.set()), daemon=True).start()
    return marked


def many(host, port, count):
    outcomes = collections.Counter()
    for _ in range(int(count)):
        connection = Connection(host, port, timeout=PATIENCE)
        outcomes[outcome(connection)] += 1
        connection.close()
        time.sleep(PAUSE / 2)
    return {"calls": outcomes.total(), "bad": outcomes.total() - outcomes["200"], "outcomes": outcomes}


def outcome(connection):
    """Its status, or the name of what went wrong; then the connection is closed."""
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return type(error).__name__


def send_bytes(host, port, text):
    return first_of(host, port, bytes.fromhex(text), half_close=False)


def half(host, port):
    request = f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
    return first_of(host, port, request, half_close=True)


def first_of(host, port, sent, half_close):
    """What comes first behind these bytes, and after how many seconds."""
    begun, answer = time.monotonic(), b""
    try:
        with socket.create_connection((host, port), timeout=PATIENCE) as connection:
            connection.settimeout(LONG)
            begun = time.monotonic()
            connection.sendall(sent)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(64)
            what = "answer" if answer else "end"
    except TimeoutError:
        what = "silence"
    except ConnectionRefusedError:
        what = "refused"
    except OSError:
        what = "reset"
    return {"first": what, "seconds": round(time.monotonic() - begun, 2), "answer": answer.decode("latin-1")}


COMMANDS = {"keep": keep, "many": many, "bytes": send_bytes, "half": half}


if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](sys.argv[2], int(sys.argv[3]), *sys.argv[4:])), flush=True)
