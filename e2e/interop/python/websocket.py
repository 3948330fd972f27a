"""A websocket echo server, `websocket.py PORT`, and its client, `websocket.py ws://HOST:PORT/`.
The server also resets its connection where websocket_resets.py asks for it."""

import asyncio
import socket
import struct
import sys

import websockets


# The beginning of a frame of 4 KB.
HALF = b"\x82\x7e\x10\x00half"
present = set()


async def echo(one):
    present.add(one)
    try:
        async for message in one:
            if message == "how many":
                await one.send(str(len(present)))
            elif message == "reset":
                reset(one)
            elif message == "reset within a frame":
                one.transport.write(HALF)
                # It is on its way before the reset, which would overtake it.
                await asyncio.sleep(0.1)
                reset(one)
            else:
                await one.send(message)
    except websockets.ConnectionClosedError:
        # Whose client resets it.
        pass
    finally:
        present.discard(one)


def reset(one):
    one.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.transport.abort()


async def handshake(one, request):
    if request.path == "/reset":
        reset(one)


async def serve(port):
    async with websockets.serve(echo, "0.0.0.0", port, max_size=None, process_request=handshake):
        await asyncio.Future()


async def call(url):
    async with websockets.connect(url, max_size=None, proxy=None) as one:
        for message in ("hello", "", "x" * 1_000_000, b"\x00\xff" * 10):
            await one.send(message)
            got = await one.recv()
            print(f"{len(message)} {type(message).__name__}: {'same' if got == message else 'other'}")
        for n in range(200):
            await one.send(str(n))
        print("in order" if [await one.recv() for _ in range(200)] == [str(n) for n in range(200)] else "out of order")
        waiter = await one.ping()
        await asyncio.wait_for(waiter, 5)
        print("pong")
        await asyncio.sleep(1.5)
        await one.send("after silence")
        print(await one.recv())
        await one.close(1000, "done")
        print(f"closed {one.close_code} {one.close_reason}")

    async def short(n):
        async with websockets.connect(url, proxy=None) as one:
            await one.send(str(n))
            return await one.recv() == str(n)

    print(f"50 at once: {sorted(set(await asyncio.gather(*[short(n) for n in range(50)])))}")


asyncio.run(call(sys.argv[1]) if sys.argv[1].startswith("ws") else serve(int(sys.argv[1])))
