"""How many single charges are let in, and how many at once."""

from typing import cast

import pytest

from picopay.charges.lanes import Lanes
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
