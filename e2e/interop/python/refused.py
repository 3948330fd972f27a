"""Python's http.client asks for what no rule admits: `refused.py HOST:PORT`. Prints what all
clients of refusals print."""

import collections
import http.client
import sys
import threading

HOST, PORT = sys.argv[1].rsplit(":", 1)
SHOWN = 17
dialled = 0


class Connection(http.client.HTTPConnection):
    def connect(self):
        global dialled
        dialled += 1
        super().connect()


def new():
    return Connection(HOST, int(PORT), timeout=20)


def ask(connection, method, path, body=None):
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return f"{answer.status} {answer.read()[:SHOWN].decode()}".strip()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return type(error).__name__


def main():
    one = new()
    for _ in range(10):
        ask(one, "GET", "/private")
    print("GET:", ask(one, "GET", "/private"))
    print("HEAD:", ask(one, "HEAD", "/private"))
    print("allowed behind them:", ask(one, "GET", "/hello"))
    print("connections so far:", dialled)
    large = b"x" * 1_000_000
    print("POST 1:", ask(one, "POST", "/private", b"x"))
    # It sends the whole of a body before it looks for an answer.
    print("POST 1000000:", ask(one, "POST", "/private", large))
    print("POST 1000000 of unknown length:", ask(one, "POST", "/private", iter([large[:50_000]] * 20)))
    said, lock = collections.Counter(), threading.Lock()

    def work():
        got = ask(new(), "POST", "/private", large[:10_000])
        with lock:
            said[got] += 1

    workers = [threading.Thread(target=work) for _ in range(50)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("50 at once:", " ".join(f"{count} x {answer}" for answer, count in sorted(said.items())))
    print("allowed at the end:", ask(one, "GET", "/hello"))


main()
