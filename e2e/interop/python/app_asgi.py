"""The pages of the harness as an ASGI application, for uvicorn and hypercorn."""

import asyncio
import time

# Seconds from one server-sent event to the next: longer than a busy machine takes to pass one on.
BETWEEN = 1.0
listening = 0


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await socket(receive, send)
        return
    path = scope["path"]

    async def start(status=200, *headers):
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain"), *headers]})

    async def body(data=b"", more=False):
        await send({"type": "http.response.body", "body": data, "more_body": more})

    if path == "/hello":
        await start(200, (b"content-length", b"6"))
        await body(b"hello\n")
    elif path.startswith("/bytes/"):
        left = int(path[7:])
        await start(200, (b"content-length", b"%d" % left))
        piece = b"0123456789abcdef" * 4096
        while left > 0 and scope["method"] != "HEAD":
            await body(piece[:left], True)
            left -= len(piece)
        await body()
    elif path == "/echo":
        await start()
        more = True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            more = event.get("more_body", False)
            await body(event.get("body", b""), True)
        await body()
    elif path == "/size":
        more, count = True, 0
        while more:
            event = await receive()
            more = event.get("more_body", False)
            count += len(event.get("body", b""))
        await start()
        await body(b"%d\n" % count)
    elif path == "/drip":
        await start()
        for n in range(5):
            await body(b"data: %d\n\n" % n, True)
            await asyncio.sleep(0.04)
        await body()
    elif path == "/events":
        await events(scope, receive, send)
    elif path == "/listening":
        await start()
        await body(b"%d\n" % listening)
    else:
        await start(404, (b"content-length", b"5"))
        await body(b"none\n")


async def events(scope, receive, send):
    """Server-sent events until the client leaves, after the last one that it says it has. Each
    carries the time of the machine at which it was sent, in the second of two lines."""
    global listening
    number = int(dict(scope["headers"]).get(b"last-event-id", b"0"))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]})
    await send({"type": "http.response.body", "body": b": welcome\nretry: 100\n\n", "more_body": True})
    listening += 1
    left = asyncio.create_task(leaves(receive))
    while not left.done():
        number += 1
        text = f"event: tick\nid: {number}\ndata: event {number}\ndata: {time.monotonic()}\n\n"
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        await asyncio.wait({left}, timeout=BETWEEN)
    listening -= 1


async def leaves(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def socket(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")})
