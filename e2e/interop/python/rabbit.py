"""pika talks to RabbitMQ: `rabbit.py HOST PORT`."""

import hashlib
import sys

import pika

host, port = sys.argv[1], int(sys.argv[2])


def connect():
    return pika.BlockingConnection(pika.ConnectionParameters(host, port, heartbeat=2, blocked_connection_timeout=20))


connection = connect()
channel = connection.channel()
channel.queue_declare("q", exclusive=True)
channel.confirm_delivery()
for size in (0, 1, 1000, 1_000_000):
    channel.basic_publish("", "q", b"r" * size)
    _, _, body = channel.basic_get("q", auto_ack=True)
    print(size, hashlib.sha256(body or b"").hexdigest()[:12])
for n in range(500):
    channel.basic_publish("", "q", str(n).encode())
got = []
for method, _, body in channel.consume("q", inactivity_timeout=5):
    if method is None:
        break
    got.append(int(body))
    channel.basic_ack(method.delivery_tag)
    if len(got) == 500:
        break
channel.cancel()
print("in order" if got == list(range(500)) else f"{len(got)} came")
# Longer than a heartbeat without a word of one's own.
connection.sleep(5)
print("alive" if connection.is_open else "gone")
connection.close()
many = [connect() for _ in range(20)]
print(f"{sum(one.is_open for one in many)} open at once")
for one in many:
    one.close()
print("closed")
