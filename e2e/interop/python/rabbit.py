"""pika talks to RabbitMQ: `rabbit.py HOST PORT`."""

import concurrent.futures
import hashlib
import sys
import threading

import pika

host, port = sys.argv[1], int(sys.argv[2])


AT_ONCE = 50
together = threading.Barrier(AT_ONCE)


def connect(heartbeat):
    return pika.BlockingConnection(pika.ConnectionParameters(host, port, heartbeat=heartbeat, blocked_connection_timeout=20))


def own_message(number):
    """Whether a message came back as it was, by a queue of its own, while all the others are connected."""
    # The client answers no heartbeats while it waits for the others.
    one = connect(60)
    together.wait(40)
    channel = one.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.confirm_delivery()
    sent = str(number).encode() * 10_000
    channel.basic_publish("", queue, sent)
    _, _, body = channel.basic_get(queue, auto_ack=True)
    one.close()
    return body == sent


connection = connect(2)
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
with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
    print(f"{sum(pool.map(own_message, range(AT_ONCE)))} of {AT_ONCE} at once had their own message")
