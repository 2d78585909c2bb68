"""When a queue is full: as soon as what comes next would wait too long to be worth accepting.

A bound on the number alone is no bound on the time: thousands are a second's work on one machine
and half a minute's on another. So the pace of the last batches tells how many may wait.
"""

import asyncio
from typing import Final

WAIT_SECONDS_MAX: Final = 0.25
BATCHES: Final = 2  # may always wait, however slow: a burst is no overload
# Until large batches have told: what a quick machine needs for an item.
ITEM_SECONDS_ASSUMED: Final = 0.0002
LET_IN_AT_A_TIME: Final = 16
LARGE: Final = 4  # a batch of at least so many parts of the largest
_WEIGHT: Final = 0.25  # of the newest batch


class Pace:
    """How long an item takes in large batches, and how many may wait therefore: `room`."""

    def __init__(self, batch_max: int) -> None:
        self._batch_max = batch_max
        self._item_seconds = ITEM_SECONDS_ASSUMED
        self.room = self._room()

    def note(self, items: int, seconds: float) -> None:
        """A batch took so long. A small one costs more by the item: it can only tell of haste."""
        if not items:
            return
        told = seconds / items
        if items * LARGE >= self._batch_max or told < self._item_seconds:
            self._item_seconds += _WEIGHT * (told - self._item_seconds)
            self.room = self._room()

    def _room(self) -> int:
        least = BATCHES * self._batch_max
        if least * self._item_seconds >= WAIT_SECONDS_MAX:
            return least
        return int(WAIT_SECONDS_MAX / self._item_seconds)


class Gate:
    """Who is let in to a queue that batches are taken from, the next while one is at work.

    Work that begins keeps all others waiting, those too that are only to be refused. So after an
    overload has begun, a queue's free places are filled by and by, until nobody is left waiting.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, pace: Pace, batch_max: int) -> None:
        self._loop = loop
        self._pace = pace
        self._batch_max = batch_max
        self._overloaded = False
        self._enough: int | None = None  # inside, in this turn of the event loop

    def crowded(self, waiting: int) -> bool:
        """Whoever comes now would wait too long, in whatever way he came."""
        return waiting >= self._pace.room

    def full(self, waiting: int, inside: int) -> bool:
        """Asked for each who comes; `inside` are who waits, is at work, or is on his way there."""
        room = self._pace.room
        if waiting >= room or inside >= room + self._batch_max:
            self._overloaded = True
            return True
        if inside < room and not self._overloaded:
            return False
        return inside >= self._enough_this_turn(inside)

    def _enough_this_turn(self, inside: int) -> int:
        if self._enough is None:
            self._enough = inside + LET_IN_AT_A_TIME
            self._loop.call_soon(self._begin_turn)
        return self._enough

    def _begin_turn(self) -> None:
        self._enough = None

    def relieved(self) -> None:
        """Nobody is left waiting."""
        self._overloaded = False
