"""Requests at a steady rate: each is sent when it is due, however many are still unanswered."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import ClientSession, TCPConnector

Send = Callable[[ClientSession, int], Awaitable[None]]


async def steadily(port: int, *, per_second: int, seconds: int, send: Send) -> list[float]:
    """How long each of the numbered requests took, in seconds, counted from when it was due."""
    latencies: list[float] = []

    async def one(index: int, due: float) -> None:
        await send(session, index)
        latencies.append(time.monotonic() - due)

    headers = {"Content-Type": "application/json"}
    connector = TCPConnector(limit=256)
    async with ClientSession(
        f"http://127.0.0.1:{port}", headers=headers, connector=connector
    ) as session:
        began = time.monotonic()
        tasks: list[asyncio.Task[None]] = []
        for index in range(per_second * seconds):
            due = began + index / per_second
            await asyncio.sleep(due - time.monotonic())
            tasks.append(asyncio.create_task(one(index, due)))
        await asyncio.gather(*tasks)
    return latencies
