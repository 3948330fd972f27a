"""An honest caller: `honest.py HOST:PORT SECONDS RATE`. GETs on a few kept connections and
on new ones, at a steady rate. Prints JSON: how many, which failed, the latencies."""

import collections
import http.client
import json
import sys
import threading
import time

host, port = sys.argv[1].rsplit(":", 1)
seconds, rate = float(sys.argv[2]), float(sys.argv[3])
end, lock = time.monotonic() + seconds, threading.Lock()
times, failures = [], collections.Counter()
WORKERS = 4


def work(number):
    connection = None
    due = time.monotonic() + number / rate
    at = 0
    while due < end:
        time.sleep(max(0, due - time.monotonic()))
        due += WORKERS / rate
        at += 1
        started = time.monotonic()
        try:
            if connection is None or at % 10 == 0:
                connection = http.client.HTTPConnection(host, int(port), timeout=10)
            connection.request("GET", "/public")
            answer = connection.getresponse()
            body = answer.read()
            reason = None if (answer.status, body) == (200, b"ok") else f"{answer.status} {answer.getheader('weft-reason')}"
        except (OSError, http.client.HTTPException) as error:
            reason, connection = type(error).__name__, None
        with lock:
            times.append(time.monotonic() - started)
            if reason:
                failures[reason] += 1


workers = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
times.sort()
print(json.dumps({"calls": len(times), "failed": sum(failures.values()), "reasons": failures,
                  "p50_ms": round(times[len(times) // 2] * 1000, 1), "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 1)}))
