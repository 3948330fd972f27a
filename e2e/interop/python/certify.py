"""Certificates of the mesh, as a proxy gets its own: `certify.py HOST:PORT FOLDER NAME...`.

Each name is the token that the stand-in controller takes for the pod of this name. Writes
NAME.pem into FOLDER, the chain and its key. By hand, because gRPC's own client would insist
on a host name in the controller's certificate.
"""

import base64
import pathlib
import socket
import ssl
import subprocess
import sys

import h2.config
import h2.connection
import h2.events

METHOD = "/weft.v1.Control/Certify"
SECONDS = 10


def varint(number):
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def field(number, content):
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def fields(data):
    """Number and content of each field of a message that has only fields with a length."""
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        length, at = read_varint(data, at)
        yield key >> 3, data[at:at + length]
        at += length


def request_and_key():
    """A signing request in DER, of which only the key counts, and that key."""
    made = subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256",
                           "-subj", "/CN=member", "-keyout", "/dev/stdout"], capture_output=True, text=True, check=True, timeout=SECONDS).stdout
    key, request = made.split("-----BEGIN CERTIFICATE REQUEST-----")
    return base64.b64decode(request.split("-----END")[0]), key


def ask(address, message):
    """The response to one unary call, from any server: this run's stand-in is the only one there."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    anybody.set_alpn_protocols(["h2"])
    host, port = address.rsplit(":", 1)
    with anybody.wrap_socket(socket.create_connection((host, int(port)), timeout=SECONDS)) as stream:
        http2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        http2.initiate_connection()
        http2.send_headers(1, [(":method", "POST"), (":scheme", "https"), (":authority", address), (":path", METHOD),
                               ("content-type", "application/grpc"), ("te", "trailers")])
        http2.send_data(1, b"\x00" + len(message).to_bytes(4, "big") + message, end_stream=True)
        stream.sendall(http2.data_to_send())
        answer, status = b"", None
        while data := stream.recv(65536):
            for event in http2.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    answer += event.data
                    http2.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, (h2.events.TrailersReceived, h2.events.ResponseReceived)):
                    status = dict(event.headers).get("grpc-status", status)
                elif isinstance(event, h2.events.StreamEnded):
                    if status != "0":
                        sys.exit(f"the stand-in answered with gRPC status {status}")
                    return answer[5:]
            stream.sendall(http2.data_to_send())
    sys.exit("the stand-in ended the connection")


def main():
    address, folder, *names = sys.argv[1:]
    for name in names:
        request, key = request_and_key()
        answer = ask(address, field(1, name.encode()) + field(2, request))
        chain = [ssl.DER_cert_to_PEM_cert(content) for number, content in fields(answer) if number == 1]
        file = pathlib.Path(folder, f"{name}.pem")
        file.write_text("".join(chain) + key)
        print(f"{file}: {len(chain)} certificates")


main()
