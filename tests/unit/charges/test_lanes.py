"""How many single charges are let in, and how many at once."""

import asyncio
from typing import cast

import pytest

from picopay.charges.lanes import LET_IN_AT_A_TIME, Lanes
from picopay.charges.queues import BATCH_MAX
from picopay.infra.db import Db
from picopay.infra.shedding import BATCHES, ITEM_SECONDS_ASSUMED, WAIT_SECONDS_MAX

ROOM = int(WAIT_SECONDS_MAX / ITEM_SECONDS_ASSUMED)


@pytest.fixture
async def lanes() -> Lanes:
    """With nothing in them, so that they ask no database."""
    return Lanes(cast("Db", None))


async def test_a_burst_is_let_in_at_once(lanes: Lanes) -> None:
    assert BATCHES * BATCH_MAX > 500
    assert not any(lanes.full(inside) for inside in range(ROOM))
    await lanes.close()


async def test_where_the_queue_has_been_full_its_places_are_filled_by_and_by(lanes: Lanes) -> None:
    first = [inside for inside in range(ROOM, ROOM + BATCH_MAX) if not lanes.full(inside)]
    assert first == list(range(ROOM, ROOM + LET_IN_AT_A_TIME))
    await asyncio.sleep(0)
    assert not lanes.full(ROOM + LET_IN_AT_A_TIME)
    assert lanes.full(ROOM + 2 * LET_IN_AT_A_TIME)
    await asyncio.sleep(0)
    assert lanes.full(ROOM + BATCH_MAX)
    await lanes.close()
