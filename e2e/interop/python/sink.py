"""An application that believes anything: it answers whatever comes and writes down what
came, one JSON line per piece: `sink.py LOG PORT...`. What it has seen has passed the mesh."""

import asyncio
import json
import resource
import sys

import h2.config
import h2.connection
import h2.events

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
# Seconds.
STUCK = 60
log = open(sys.argv[1], "a", encoding="utf-8")


def note(port, data):
    log.write(json.dumps({"port": port, "came": data.decode("latin-1")}) + "\n")
    log.flush()


def pour(http2, left):
    """Sends what the windows allow of answers that are not whole; `left` is how much is, by stream."""
    for stream in list(left):
        while left[stream] and (room := min(http2.local_flow_control_window(stream), http2.max_outbound_frame_size, left[stream])) > 0:
            left[stream] -= room
            http2.send_data(stream, b"x" * room, end_stream=not left[stream])
        if not left[stream]:
            del left[stream]


async def serve(reader, writer):
    port = writer.get_extra_info("sockname")[1]
    http2, left = None, {}
    try:
        while data := await reader.read(65536):
            # Bodies of floods are of no interest and would fill the disk.
            note(port, data[:20_000])
            if data.startswith(PREFACE):
                http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
                http2.initiate_connection()
            if http2:
                for event in http2.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        note(port, b"\n".join(name + b": " + value for name, value in event.headers))
                        path = dict(event.headers)[b":path"]
                        if path == b"/stuck":
                            continue
                        http2.send_headers(event.stream_id, [(b":status", b"200")], end_stream=path != b"/large")
                        if path == b"/large":
                            left[event.stream_id] = 5_000_000
                    elif isinstance(event, h2.events.StreamReset):
                        left.pop(event.stream_id, None)
                pour(http2, left)
                writer.write(http2.data_to_send())
            elif b"upgrade: h2c" in data.lower():
                writer.write(SWITCH)
            elif data.startswith(b"POST /stuck"):
                # This connection stays unread for a while, whatever becomes of it.
                await asyncio.sleep(STUCK)
                break
            elif data.startswith(b"GET /large"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000)
            else:
                writer.write(ANSWER)
            await writer.drain()
    except (OSError, h2.exceptions.H2Error):
        pass
    finally:
        writer.close()


async def main():
    # What is stuck keeps its sockets.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for port in sys.argv[2:]:
        await asyncio.start_server(serve, "0.0.0.0", int(port), backlog=1024)
    print("ready", flush=True)
    await asyncio.Future()


asyncio.run(main())
