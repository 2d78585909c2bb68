"""How many may wait: as many as are done in time, at the pace of the last batches."""

import pytest

from picopay.infra.shedding import BATCHES, ITEM_SECONDS_ASSUMED, WAIT_SECONDS_MAX, Pace

BATCH_MAX = 256


@pytest.fixture
def pace() -> Pace:
    return Pace(BATCH_MAX)


def settle(pace: Pace, items: int, item_seconds: float, batches: int = 40) -> None:
    for _ in range(batches):
        pace.note(items, items * item_seconds)


def test_before_anything_is_known_a_quick_machine_is_assumed(pace: Pace) -> None:
    assert pace.room == int(WAIT_SECONDS_MAX / ITEM_SECONDS_ASSUMED)


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
