"""How long a lane rests, and how far back it looks."""

import asyncio
from time import monotonic

from picopay.outbox.model import ALL_TIME_SECONDS
from picopay.outbox.pace import (
    LOCKED_PAUSE_SECONDS,
    LOOK_BACK_SECONDS,
    POLL_SECONDS_MAX,
    Pace,
)

LONG_AGO = -1e6


def a_pace() -> tuple[Pace, asyncio.Event]:
    heard = asyncio.Event()
    return Pace(heard, lambda: 0.0), heard


async def never() -> float | None:
    return None


async def long_due() -> float | None:
    return -5.0


def test_it_looks_back_all_the_way_at_first_and_once_a_second() -> None:
    pace, _ = a_pace()
    assert pace.look_back_seconds() == ALL_TIME_SECONDS
    pace.looked(ALL_TIME_SECONDS, began=monotonic(), found=0, is_all=True)
    assert pace.look_back_seconds() == LOOK_BACK_SECONDS
    pace.looked(ALL_TIME_SECONDS, began=LONG_AGO, found=0, is_all=True)
    assert pace.look_back_seconds() == ALL_TIME_SECONDS


def test_a_short_look_does_not_put_the_long_one_off() -> None:
    pace, _ = a_pace()
    pace.looked(LOOK_BACK_SECONDS, began=monotonic(), found=0, is_all=True)
    assert pace.look_back_seconds() == ALL_TIME_SECONDS


def test_with_a_backlog_it_looks_back_all_the_way_each_time() -> None:
    pace, _ = a_pace()
    pace.looked(ALL_TIME_SECONDS, began=monotonic(), found=0, is_all=True)
    pace.looked(LOOK_BACK_SECONDS, began=monotonic(), found=50, is_all=False)
    assert pace.look_back_seconds() == ALL_TIME_SECONDS


async def test_it_rests_longer_and_longer_while_nothing_is_found() -> None:
    pace, _ = a_pace()
    for _ in range(20):
        pace.looked(LOOK_BACK_SECONDS, began=monotonic(), found=0, is_all=True)
    began = monotonic()
    await pace.rest(never)
    assert monotonic() - began > 0.9 * POLL_SECONDS_MAX
    pace.looked(LOOK_BACK_SECONDS, began=monotonic(), found=1, is_all=True)
    began = monotonic()
    await pace.rest(never)
    assert monotonic() - began < 0.5 * POLL_SECONDS_MAX


async def test_what_is_due_and_was_not_found_is_not_looked_for_in_a_hurry() -> None:
    pace, _ = a_pace()
    for _ in range(20):
        pace.looked(LOOK_BACK_SECONDS, began=monotonic(), found=0, is_all=True)
    began = monotonic()
    await pace.rest(long_due)
    assert LOCKED_PAUSE_SECONDS * 0.9 < monotonic() - began < 0.5 * POLL_SECONDS_MAX


async def test_what_is_told_while_it_looks_ends_the_rest_at_once() -> None:
    pace, heard = a_pace()
    for _ in range(20):
        pace.looked(LOOK_BACK_SECONDS, began=monotonic(), found=0, is_all=True)
    pace.look_back_seconds()
    heard.set()
    began = monotonic()
    await pace.rest(never)
    assert monotonic() - began < 0.5 * POLL_SECONDS_MAX
