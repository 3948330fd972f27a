"""Calls of one client that are careless, each over a connection of its own, and beside them
those of another one over a connection that it keeps: how both are answered."""

import collections
import http.client
import sys
import threading
import time

HOST, PORT = sys.argv[1].split(":")
CALLS, HONEST = 100, 300
HIDDEN = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
# A head that the next request would complete.
HALF = "GET ws:/hidden\r\nX: "
CARELESS = [("POST", "/post", '{"a":1}'), ("PUT", "/put", '{"a":1}'), ("POST", "/hides", HIDDEN), ("POST", "/half", HALF),
            ("GET", "/get", HIDDEN), ("DELETE", "/delete", HIDDEN), ("HEAD", "/head", None), ("GET", "/same", None)]


def ask(connection, method, path, body=None):
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        content = answer.read().decode(errors="replace")
        return f"{answer.status} {content or 'nothing'}"
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return type(error).__name__


def careless(method, path, body):
    seen = collections.Counter()
    for _ in range(CALLS):
        connection = http.client.HTTPConnection(HOST, int(PORT), timeout=5)
        seen[ask(connection, method, path, body)] += 1
        connection.close()
    return seen


def honest():
    connection = http.client.HTTPConnection(HOST, int(PORT), timeout=5)
    seen = collections.Counter()
    for _ in range(HONEST):
        seen[ask(connection, "GET", "/honest")] += 1
        time.sleep(0.003)
    return seen


for method, path, body in CARELESS:
    seen = {}
    others = [threading.Thread(target=lambda: seen.update(careless=careless(method, path, body))),
              threading.Thread(target=lambda: seen.update(honest=honest()))]
    for one in others:
        one.start()
    for one in others:
        one.join()
    for who, answers in sorted(seen.items()):
        print(f"{who} {method} {path}: {', '.join(f'{count} x {answer}' for answer, count in sorted(answers.items()))}")
