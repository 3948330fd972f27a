"""grpc's interop service by grpcio, as far as the loads use it: `grpcio_server.py PORT`.

The answer repeats the payload, which the loads ask for in the same size. Messages are
bytes here: SimpleRequest and StreamingOutputCallRequest carry the payload as field 3.
"""

import signal
import sys
from concurrent import futures

import grpc


def number(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def answer(asked, _context=None):
    at = 0
    while at < len(asked):
        key, at = number(asked, at)
        value, after = number(asked, at)
        if key & 7 == 2:
            after += value
        if key == 3 << 3 | 2:
            # The answer's only field is the payload, with its length as it came.
            return bytes([1 << 3 | 2]) + asked[at:after]
        at = after
    return b""


def stream(asked, _context):
    yield from map(answer, asked)


server = grpc.server(futures.ThreadPoolExecutor(60))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.testing.TestService", {
    "UnaryCall": grpc.unary_unary_rpc_method_handler(answer),
    "FullDuplexCall": grpc.stream_stream_rpc_method_handler(stream),
})])
server.add_insecure_port(f"0.0.0.0:{sys.argv[1]}")
server.start()
# Clients receive GOAWAY, and calls in flight are answered; seconds.
signal.signal(signal.SIGTERM, lambda *_: server.stop(5))
server.wait_for_termination()
