"""grpcio calls grpc's own interop service: `grpcio_load.py HOST:PORT CALLS PARALLEL [unary|bidi]`."""

import collections
import queue
import sys
import threading

import grpc

to, calls, parallel = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
kind = sys.argv[4] if len(sys.argv) > 4 else "unary"
SIZE = 100


def field(number, payload):
    return bytes([number << 3 | 2, len(payload)]) + payload


PAYLOAD = field(2, bytes(SIZE))
# SimpleRequest: response_size, payload. The answer's only field is the payload.
ASKED = bytes([2 << 3, SIZE]) + field(3, PAYLOAD)
# StreamingOutputCallRequest: response_parameters { size }, payload.
ASKED_IN_STREAM = field(2, bytes([1 << 3, SIZE])) + field(3, PAYLOAD)
ANSWER = field(1, PAYLOAD)

channel = grpc.insecure_channel(to)
unary = channel.unary_unary("/grpc.testing.TestService/UnaryCall")
bidi = channel.stream_stream("/grpc.testing.TestService/FullDuplexCall")
reasons, lock, numbers = collections.Counter(), threading.Lock(), iter(range(calls))


def one():
    if kind == "unary":
        return [unary(ASKED, timeout=10)] == [ANSWER]
    asked = queue.SimpleQueue()
    answers = bidi(iter(asked.get, None), timeout=10)
    for _ in range(5):
        asked.put(ASKED_IN_STREAM)
        if next(answers) != ANSWER:
            return False
    asked.put(None)
    return list(answers) == []


def work():
    while True:
        with lock:
            if next(numbers, None) is None:
                return
        try:
            reason = None if one() else "wrong answer"
        except grpc.RpcError as error:
            reason = f"{error.code().name} {error.details()}"
        if reason:
            with lock:
                reasons[reason] += 1


workers = [threading.Thread(target=work) for _ in range(parallel)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(f"calls {calls} failed {sum(reasons.values())}")
for reason, count in sorted(reasons.items()):
    print(f"  {count} x {reason}")
