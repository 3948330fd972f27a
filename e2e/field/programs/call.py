"""Clients that see more than curl does; each prints one line of JSON.

call.py keep HOST PORT          one kept connection, called every 100 ms until 10 s after a line on
                                standard input, 150 s at most; counts those 10 s
call.py many HOST PORT N        N calls, a connection each, and whose answers they were
call.py bytes HOST PORT HEX     sends these bytes, and waits for what comes first
call.py half HOST PORT          a request, and the end of the sending direction behind it
call.py paths HOST PORT PATH... the answers to requests of these paths, sent as they are
call.py upgrade HOST PORT N     N times POST with a body and an upgrade, as docker exec sends it
call.py streams HOST PORT N     N answers at a time, and how many of them came whole
call.py rate HOST PORT RATE SECONDS [PATH [AT PATH]]
                                RATE calls a second, whether or not earlier ones were answered, and
                                from second AT on of another path; statuses by second
"""

import collections
import concurrent.futures
import http.client
import json
import queue
import socket
import sys
import threading
import time

PAUSE = 0.1
LAST = 10.0
MOST = 150.0
# Of one call.
PATIENCE = 5.0
# Longer than a foreign hang of 10 s, and than a slow server.
LONG = 20.0
# Longer than a stream and a proxy that stands still meanwhile.
STREAM = 60.0
# Connections of `rate`: as many as wait where each of 30 calls a second takes 5 s.
CONNECTIONS = 150
# Less than a server keeps an idle connection; Node's does so for 5 s.
KEPT = 2.0
GOOD = "200"


class Connection(http.client.HTTPConnection):
    """Counts how often it connects; after a failure it looks the name up anew, as clients do."""

    connects = 0

    def connect(self):
        self.connects += 1
        super().connect()


def keep(host, port):
    connection = Connection(host, port, timeout=PATIENCE)
    names = collections.Counter()
    counts = until_marked(lambda: outcome(connection, names=names))
    return counts | {"connects": connection.connects, "names": names}


def until_marked(ask):
    """Calls every PAUSE until LAST seconds after a line on standard input."""
    marked = mark()
    started, end, calls = time.monotonic(), None, []
    while True:
        now = time.monotonic()
        if end is None and marked.is_set():
            end = now + LAST
        if now >= (end or started + MOST):
            break
        calls.append((now, ask()))
        time.sleep(max(0.0, now + PAUSE - time.monotonic()))
    last = [what for at, what in calls if end and at >= end - LAST]
    return {
        "calls": len(calls),
        "bad": sum(what != GOOD for _, what in calls),
        "last": len(last),
        "last_bad": sum(what != GOOD for what in last),
        "outcomes": collections.Counter(what for _, what in calls),
    }


def mark():
    marked = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), marked.set()), daemon=True).start()
    return marked


def many(host, port, count):
    outcomes, names = collections.Counter(), collections.Counter()
    for _ in range(int(count)):
        connection = Connection(host, port, timeout=PATIENCE)
        outcomes[outcome(connection, names=names)] += 1
        connection.close()
        time.sleep(PAUSE / 2)
    return {"calls": outcomes.total(), "bad": outcomes.total() - outcomes[GOOD], "outcomes": outcomes, "names": names}


def outcome(connection, path="/", names=None):
    """Its status, or the name of what went wrong; then the connection is closed."""
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return type(error).__name__
    if names is not None and answer.status == 200:
        names[body.decode("latin-1")] += 1
    return str(answer.status)


def send_bytes(host, port, text):
    return first_of(host, port, bytes.fromhex(text), half_close=False)


def half(host, port):
    request = f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
    return first_of(host, port, request, half_close=True)


def first_of(host, port, sent, half_close):
    """What comes first behind these bytes, and after how many seconds."""
    started, answer = time.monotonic(), b""
    try:
        with socket.create_connection((host, port), timeout=PATIENCE) as connection:
            connection.settimeout(LONG)
            started = time.monotonic()
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
    return {"first": what, "seconds": round(time.monotonic() - started, 2), "answer": answer.decode("latin-1")}


def paths(host, port, *asked):
    answers = []
    for path in asked:
        names = collections.Counter()
        connection = Connection(host, port, timeout=PATIENCE)
        status = outcome(connection, path, names)
        connection.close()
        answers.append(next(iter(names), status))
    return {"answers": answers}


def upgrade(host, port, count):
    answers = collections.Counter(upgraded(host, port) for _ in range(int(count)))
    return {"good": answers[GOOD], "calls": answers.total(), "answers": answers}


def upgraded(host, port):
    """GOOD where body and echo came back, else the first line of what came."""
    body = b'{"Detach":false,"Tty":true}'
    head = (f"POST /exec/1/start HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n")
    try:
        with socket.create_connection((host, port), timeout=PATIENCE) as connection, connection.makefile("rb") as lines:
            connection.sendall(head.encode() + body)
            status = lines.readline().decode("latin-1").strip()
            while lines.readline().strip():
                pass
            if " 101 " not in status:
                return status or "end"
            first = lines.readline().strip()
            connection.sendall(b"ls\n")
            echo = lines.readline().strip()
    except OSError as error:
        return type(error).__name__
    return GOOD if (first, echo) == (b"POST " + body, b"ls") else "other bytes"


def streams(host, port, count):
    def whole(_):
        return outcome(Connection(host, port, timeout=STREAM))

    with concurrent.futures.ThreadPoolExecutor(int(count)) as pool:
        outcomes = collections.Counter(pool.map(whole, range(int(count))))
    return {"calls": outcomes.total(), "bad": outcomes.total() - outcomes[GOOD], "outcomes": outcomes}


def rate(host, port, a_second, seconds, path="/", at="inf", then="/"):
    a_second, seconds, at = float(a_second), float(seconds), float(at)
    # Those that were used last first, with when that was.
    idle = queue.LifoQueue()
    for _ in range(CONNECTIONS):
        idle.put((time.monotonic(), Connection(host, port, timeout=PATIENCE)))

    def one(due):
        used, connection = idle.get()
        if time.monotonic() - used > KEPT:
            connection.close()
        what = outcome(connection, then if due >= at else path)
        idle.put((time.monotonic(), connection))
        return due, what

    started, calls = time.monotonic(), []
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        for number in range(int(a_second * seconds)):
            due = number / a_second
            time.sleep(max(0.0, started + due - time.monotonic()))
            calls.append(pool.submit(one, due))
    # By the second in which a call was due.
    counts = [collections.Counter() for _ in range(int(seconds))]
    for due, what in (call.result() for call in calls):
        counts[int(due)][what] += 1
    return {"seconds": counts}


COMMANDS = {"keep": keep, "many": many, "bytes": send_bytes, "half": half, "paths": paths, "upgrade": upgrade,
            "streams": streams, "rate": rate}


if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](sys.argv[2], int(sys.argv[3]), *sys.argv[4:])), flush=True)
