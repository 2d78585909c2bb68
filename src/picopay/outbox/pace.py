"""When a lane looks for due events, and how far back: at once when told, seldom when idle."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from picopay.outbox.model import ALL_TIME_SECONDS

POLL_SECONDS_MIN: Final = 0.005
POLL_SECONDS_MAX: Final = 1.0
# Due, and yet not claimed: others are at it, so there is no hurry.
LOCKED_PAUSE_SECONDS: Final = 0.02
# What came due longer ago than this is looked for once a second only. While somebody holds a
# snapshot, the index keeps every row that is gone, and each look would pass all of them.
LOOK_BACK_SECONDS: Final = 2.0
LONG_LOOK_SECONDS: Final = 1.0


class Pace:
    """Of one lane. Whatever is missed when told of new events is found by looking again."""

    def __init__(self, heard: asyncio.Event, chance: Callable[[], float]) -> None:
        self._heard = heard
        self._chance = chance
        self._pause = POLL_SECONDS_MIN
        self._nothing_older_at = -ALL_TIME_SECONDS

    def look_back_seconds(self) -> float:
        """How far; called right before looking, and what is told from now on wakes `rest`."""
        self._heard.clear()
        recently = monotonic() - self._nothing_older_at < LONG_LOOK_SECONDS
        return LOOK_BACK_SECONDS if recently else ALL_TIME_SECONDS

    def looked(self, back_seconds: float, *, began: float, found: int, is_all: bool) -> None:
        """What came of it, having begun at `began` of the monotonic clock."""
        if not is_all:
            self._nothing_older_at = -ALL_TIME_SECONDS
        elif back_seconds == ALL_TIME_SECONDS:
            self._nothing_older_at = began
        self._pause = POLL_SECONDS_MIN if found else min(2 * self._pause, POLL_SECONDS_MAX)

    async def rest(self, next_due_seconds: Callable[[], Awaitable[float | None]]) -> None:
        """Until something may be due, or somebody says so."""
        if self._heard.is_set():
            return
        pause = self._pause
        if pause > LOCKED_PAUSE_SECONDS and (due := await next_due_seconds()) is not None:
            pause = min(pause, max(due, LOCKED_PAUSE_SECONDS))
        try:
            async with asyncio.timeout(pause * (1 + self._chance() / 10)):
                await self._heard.wait()
        except TimeoutError:
            pass
