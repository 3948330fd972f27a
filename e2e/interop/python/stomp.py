"""STOMP by hand, as RabbitMQ speaks it: `stomp.py HOST:PORT`."""

import concurrent.futures
import socket
import sys
import time

host, port = sys.argv[1].rsplit(":", 1)
AT_ONCE, ROUNDS = 50, 20


class Connection:
    def __init__(self, *headers):
        self.socket, self.got = socket.create_connection((host, int(port)), timeout=20), b""
        self.send("CONNECT", "accept-version:1.2", "host:/", "login:guest", "passcode:guest", *headers)
        _, self.agreed, _ = self.frame()

    def send(self, command, *headers, body=b"", letter_by_letter=False):
        said = "\n".join([command, *headers, "", ""]).encode() + body + b"\0"
        for piece in [bytes([one]) for one in said] if letter_by_letter else [said]:
            self.socket.sendall(piece)
            time.sleep(0.005 if letter_by_letter else 0)

    def read(self):
        piece = self.socket.recv(65536)
        if not piece:
            raise EOFError(f"the connection ended behind {self.got[-200:]!r}")
        self.got += piece

    def frame(self):
        """Command, headers and body of the next frame, past the line endings that keep a connection alive."""
        while b"\n\n" not in self.got.lstrip(b"\n"):
            self.read()
        head, self.got = self.got.lstrip(b"\n").split(b"\n\n", 1)
        command, *lines = head.decode().split("\n")
        headers = dict(line.split(":", 1) for line in lines)
        length = int(headers.get("content-length", 0))
        # Without a length there is no zero in the body.
        while b"\0" not in self.got[length:]:
            self.read()
        if "content-length" not in headers:
            length = self.got.index(b"\0")
        body, self.got = self.got[:length], self.got[length + 1:]
        return command, headers, body

    def subscribe(self, topic):
        self.send("SUBSCRIBE", "id:0", f"destination:/topic/{topic}", "receipt:subscribed")
        return self.frame()[0]

    def publish(self, topic, body, **how):
        self.send("SEND", f"destination:/topic/{topic}", f"content-length:{len(body)}", body=body, **how)


def own_messages(number):
    """Whether a connection gets what it sends, a few times, while all the others do the same."""
    one, topic = Connection(), f"own-{number}"
    one.subscribe(topic)
    for at in range(ROUNDS):
        body = f"{number} {at} ".encode() * 500
        one.publish(topic, body)
        if one.frame()[2] != body:
            return False
    one.socket.close()
    return True


one = Connection()
print("agreed", one.agreed["version"], one.agreed.get("heart-beat"))
print(one.subscribe("here"))
for size in (0, 1, 1000, 500_000):
    body = (b"st\0mp" * (size // 5 + 1))[:size]
    one.publish("here", body)
    command, headers, got = one.frame()
    print(command, headers["destination"], size, "same" if got == body else f"{len(got)} bytes")
one.publish("here", b"slowly", letter_by_letter=True)
print("letter by letter", one.frame()[2])
for number in range(500):
    one.publish("here", str(number).encode())
got = [one.frame()[2] for _ in range(500)]
print("in order" if got == [str(number).encode() for number in range(500)] else f"not in order: {got}")
one.send("DISCONNECT", "receipt:bye")
command, headers, _ = one.frame()
print(command, headers["receipt-id"])
try:
    while True:
        one.read()
except EOFError:
    print("FIN")

wrong = Connection()
wrong.send("HELLO")
command, headers, _ = wrong.frame()
print(command, headers.get("message"))

alive = Connection("heart-beat:0,1000")
print("agreed", alive.agreed.get("heart-beat"))
end = time.monotonic() + 4
while time.monotonic() < end and alive.got.count(b"\n") < 3:
    alive.read()
print("heart beats" if alive.got.strip(b"\n") == b"" else alive.got)

with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
    print(f"{sum(pool.map(own_messages, range(AT_ONCE)))} of {AT_ONCE} at once had their own messages")
