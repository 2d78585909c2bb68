"""One side of a queue in a process of its own: a producer at a steady rate, or a worker.

Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import uvloop
from queues import QUEUES, Done, Queue

from picopay.outbox import service

FILL_EVENTS = 500  # in one transaction, when latency does not matter


async def install(queue: Queue, url: str) -> None:
    await queue.install(url)


async def fill(queue: Queue, url: str, events: int) -> None:
    async with queue.putting(url) as put:
        for first in range(0, events, FILL_EVENTS):
            await put(range(first, min(first + FILL_EVENTS, events)))


async def produce(queue: Queue, url: str, plan: dict[str, Any]) -> list[tuple[int, float]]:
    """Open loop: transactions begin when it is time, whether or not others have ended."""
    committed: list[tuple[int, float]] = []
    size: int = plan["transaction_events"]
    per_second: float = plan["per_second"] / size

    async with queue.putting(url) as put:

        async def one(number: int) -> None:
            numbers = range(number * size, (number + 1) * size)
            await put(numbers)
            now = time.monotonic()
            committed.extend((n, now) for n in numbers)

        began = time.monotonic()
        running: set[asyncio.Task[None]] = set()
        for number in range(round(plan["seconds"] * per_second)):
            await asyncio.sleep(began + number / per_second - time.monotonic())
            task = asyncio.create_task(one(number))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
    return committed


async def work(queue: Queue, url: str) -> dict[str, Any]:
    """Until SIGTERM; what was handled when, and how long PicoPay's claims took."""
    called: list[tuple[int, float]] = []
    handled: list[tuple[int, float]] = []
    claims = _timed_claims()

    def telling(when: list[tuple[int, float]]) -> Done:
        def tell(numbers: Sequence[int]) -> None:
            now = time.monotonic()
            when.extend((number, now) for number in numbers)

        return tell

    work = queue.work(url, telling(called), telling(handled))
    working = asyncio.create_task(_until_cancelled(work))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    await working
    return {"called": called, "handled": handled, "claims": claims}


async def _until_cancelled(work: Awaitable[None]) -> None:
    try:
        await work
    except asyncio.CancelledError:
        return


def _timed_claims() -> list[tuple[float, float, int]]:
    """(when, seconds, rows) of each."""
    timed: list[tuple[float, float, int]] = []
    claim = service.claim

    async def told(*arguments: Any) -> Any:  # noqa: ANN401  (whatever it is given)
        began = time.monotonic()
        claims = await claim(*arguments)
        ended = time.monotonic()
        timed.append((ended, ended - began, len(claims)))
        return claims

    service.claim = told
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("install", "fill", "produce", "work"))
    parser.add_argument("queue", choices=tuple(QUEUES))
    parser.add_argument("url")
    parser.add_argument("--plan", type=json.loads, default={})
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    queue, url, plan = QUEUES[arguments.queue], arguments.url, arguments.plan
    roles = {
        "install": lambda: install(queue, url),
        "fill": lambda: fill(queue, url, plan["events"]),
        "produce": lambda: produce(queue, url, plan),
        "work": lambda: work(queue, url),
    }
    result = uvloop.run(roles[arguments.role]())
    if arguments.out:
        arguments.out.write_text(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
