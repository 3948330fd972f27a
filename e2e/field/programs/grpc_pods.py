"""gRPC by grpcio, without generated code: a call takes bytes and is answered with the pod's name.

grpc_pods.py serve PORT        a server, which ends its streams within two seconds when it is ended
grpc_pods.py keep HOST PORT    a channel that balances by round_robin, called every 100 ms until
                               10 s after a line on standard input, 150 s at most; counts those 10 s
"""

import concurrent.futures
import json
import signal
import socket
import sys
import threading
import time

import call
import grpc

METHOD = "/field.Pods/Name"
GRACE = 2.0
# Looked up anew soon, since rollouts of rows are short; a client's own default is 30 s.
OPTIONS = [
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, context: socket.gethostname().encode())


def serve(port):
    """A server that runs, and its port."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[Handler()])
    port = server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    return server, port


def keep(host, port):
    with grpc.insecure_channel(f"dns:///{host}:{port}", options=OPTIONS) as channel:
        ask = channel.unary_unary(METHOD)
        return call.until_marked(lambda: outcome(ask))


def outcome(ask):
    try:
        ask(b"", timeout=call.PATIENCE)
    except grpc.RpcError as error:
        return error.code().name
    return call.GOOD


def main():
    if sys.argv[1] == "keep":
        print(json.dumps(keep(sys.argv[2], int(sys.argv[3]))), flush=True)
        return
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    server, _ = serve(int(sys.argv[2]))
    ended.wait()
    # New connections come meanwhile, as readiness follows the end of a pod.
    time.sleep(GRACE)
    server.stop(GRACE).wait()


if __name__ == "__main__":
    main()
