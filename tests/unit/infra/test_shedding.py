"""How many may wait: as many as are done in time, at the pace of the last batches."""

import asyncio

import pytest

from picopay.infra.shedding import (
    BATCHES,
    ITEM_SECONDS_ASSUMED,
    LET_IN_AT_A_TIME,
    WAIT_SECONDS_MAX,
    Gate,
    Pace,
)

BATCH_MAX = 256


ROOM = int(WAIT_SECONDS_MAX / ITEM_SECONDS_ASSUMED)


@pytest.fixture
def pace() -> Pace:
    return Pace(BATCH_MAX)


def settle(pace: Pace, items: int, item_seconds: float, batches: int = 40) -> None:
    for _ in range(batches):
        pace.note(items, items * item_seconds)


def test_before_anything_is_known_a_quick_machine_is_assumed(pace: Pace) -> None:
    assert pace.room == ROOM


@pytest.mark.parametrize("item_seconds", [0.0001, 0.0003, 0.0004])
def test_what_may_wait_is_done_within_the_time(pace: Pace, item_seconds: float) -> None:
    settle(pace, BATCH_MAX, item_seconds)
    assert pace.room * item_seconds == pytest.approx(WAIT_SECONDS_MAX, rel=0.01)


def test_however_slow_two_batches_may_wait(pace: Pace) -> None:
    settle(pace, BATCH_MAX, 1.0)
    assert pace.room == BATCHES * BATCH_MAX


def test_small_batches_cost_more_by_the_item_and_tell_nothing_of_large_ones(pace: Pace) -> None:
    before = pace.room
    settle(pace, 1, 0.005)
    settle(pace, BATCH_MAX // 4 - 1, 0.005)
    assert pace.room == before
    settle(pace, BATCH_MAX // 4, 0.005)
    assert pace.room < before


def test_after_a_standstill_small_batches_bring_the_room_back(pace: Pace) -> None:
    before = pace.room
    pace.note(BATCH_MAX, 5)
    assert pace.room == BATCHES * BATCH_MAX
    settle(pace, 8, ITEM_SECONDS_ASSUMED)
    assert pace.room == pytest.approx(before, rel=0.01)


def test_one_slow_batch_is_forgotten_within_ten(pace: Pace) -> None:
    settle(pace, BATCH_MAX, 0.0003)
    usual = pace.room
    pace.note(BATCH_MAX, 0.5)
    assert pace.room < usual
    settle(pace, BATCH_MAX, 0.0003, batches=10)
    assert pace.room > 0.7 * usual


def test_a_batch_that_turned_out_empty_tells_nothing(pace: Pace) -> None:
    before = pace.room
    pace.note(0, 3)
    assert pace.room == before


@pytest.fixture
async def gate(pace: Pace) -> Gate:
    return Gate(asyncio.get_running_loop(), pace, BATCH_MAX)


def let_in(gate: Gate, waiting: int, inside: int, come: int) -> int:
    """How many of those who come in one turn of the event loop."""
    at_first = inside
    for _ in range(come):
        inside += not gate.full(waiting, inside)
    return inside - at_first


async def test_a_burst_is_let_in_at_once(gate: Gate) -> None:
    assert let_in(gate, 0, 0, ROOM) == ROOM


async def test_beside_a_batch_at_work_the_rest_of_the_room_is_filled_by_and_by(gate: Gate) -> None:
    inside = let_in(gate, 0, 0, 2 * ROOM)
    assert inside == ROOM + LET_IN_AT_A_TIME
    for _ in range(BATCH_MAX // LET_IN_AT_A_TIME):
        await asyncio.sleep(0)
        inside += let_in(gate, 0, inside, ROOM)
    assert inside == ROOM + BATCH_MAX
    await asyncio.sleep(0)
    assert let_in(gate, 0, inside, 1) == 0


async def test_after_an_overload_free_places_are_filled_by_and_by_until_nobody_waits(
    gate: Gate,
) -> None:
    assert gate.full(ROOM, ROOM)
    for _ in range(3):
        assert let_in(gate, ROOM // 2, ROOM // 2, ROOM) == LET_IN_AT_A_TIME
        await asyncio.sleep(0)
    gate.relieved()
    assert let_in(gate, 0, ROOM // 2, ROOM // 2) == ROOM // 2


async def test_who_comes_in_another_way_is_let_in_as_long_as_there_is_room(gate: Gate) -> None:
    assert gate.full(ROOM, ROOM)
    assert not gate.crowded(ROOM - 1)
    assert gate.crowded(ROOM)
