"""A connection of Python's h2 that reads and writes only by call, and keeps what came of
each stream and how it ended."""

import collections
import socket

import h2.config
import h2.connection
import h2.events


class Connection:
    def __init__(self, host, port):
        self.authority = f"{host}:{port}"
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.bodies, self.heads, self.trailers = collections.defaultdict(bytes), {}, {}
        self.ends, self.gone = {}, None
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def request(self, path, method="POST", end=False, extra=()):
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", self.authority), *extra]
        self.h2.send_headers(stream, head, end_stream=end)
        return stream

    def data(self, stream, payload, end=False, padding=None):
        while len(payload) > 0 and self.h2.local_flow_control_window(stream) < len(payload) and not self.gone:
            self.flush()
            self.read()
        self.h2.send_data(stream, payload, end_stream=end, pad_length=padding)

    def read(self):
        try:
            got = self.socket.recv(65536)
        except TimeoutError:
            self.gone = self.gone or "silence for 10 s"
            return
        except ConnectionResetError:
            self.gone = self.gone or "reset"
            return
        if not got:
            self.gone = self.gone or "closed"
            return
        for event in self.h2.receive_data(got):
            match event:
                case h2.events.ResponseReceived():
                    self.heads[event.stream_id] = dict(event.headers)
                case h2.events.TrailersReceived():
                    self.trailers[event.stream_id] = dict(event.headers)
                case h2.events.DataReceived():
                    self.bodies[event.stream_id] += event.data
                    if event.flow_controlled_length:
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    self.ends[event.stream_id] = "end"
                case h2.events.StreamReset():
                    self.ends[event.stream_id] = f"reset {name(event.error_code)}"
                case h2.events.ConnectionTerminated():
                    # Events before the end are still reported.
                    self.gone = f"GOAWAY {name(event.error_code)} {(event.additional_data or b'').decode()}"
        if not self.gone:
            self.flush()

    def finish(self, stream):
        self.flush()
        while stream not in self.ends and not self.gone:
            self.read()
        status = self.heads.get(stream, {}).get(":status", "no head")
        body = self.bodies[stream]
        shown = body.decode() if len(body) < 60 else f"{len(body)} bytes, {len(set(body))} kinds"
        trailers = self.trailers.get(stream)
        return f"{status} {shown!r} {self.ends.get(stream, self.gone)}" + (f" trailers {trailers}" if trailers else "")


def name(code):
    return getattr(code, "name", str(code))
