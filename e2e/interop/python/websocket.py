"""A websocket echo server, `websocket.py PORT`, and its client, `websocket.py ws://HOST:PORT/`."""

import asyncio
import sys

import websockets


async def echo(one):
    async for message in one:
        await one.send(message)


async def serve(port):
    async with websockets.serve(echo, "0.0.0.0", port, max_size=None):
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
