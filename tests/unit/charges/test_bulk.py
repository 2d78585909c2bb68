"""Bulk requests take turns, so many may wait, and who has left is not read."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect

from picopay.charges.bulk import BULK_SLOTS, BULK_WAITING_MAX, BulkTurns
from picopay.kernel.errors import Overloaded


async def _hold(turns: BulkTurns, end: asyncio.Event) -> None:
    async with turns.reading(lambda: False):
        await end.wait()


async def test_beyond_so_many_that_wait_the_next_is_told_at_once() -> None:
    turns, end = BulkTurns(), asyncio.Event()
    held = [asyncio.create_task(_hold(turns, end)) for _ in range(BULK_SLOTS + BULK_WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await _hold(turns, end)
    end.set()
    await asyncio.gather(*held)
    await _hold(turns, end)


async def test_who_left_while_waiting_is_not_read_and_takes_no_turn() -> None:
    turns = BulkTurns()
    for _ in range(BULK_SLOTS + 1):
        with pytest.raises(ClientDisconnect):
            async with turns.reading(lambda: True):
                pytest.fail("read")


async def test_who_gives_up_waiting_makes_room() -> None:
    turns, end = BulkTurns(), asyncio.Event()
    held = [asyncio.create_task(_hold(turns, end)) for _ in range(BULK_SLOTS + BULK_WAITING_MAX)]
    await asyncio.sleep(0)
    held.pop().cancel()
    await asyncio.sleep(0)
    last = asyncio.create_task(_hold(turns, end))
    await asyncio.sleep(0)
    end.set()
    await asyncio.gather(last, *held)
