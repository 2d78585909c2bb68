"""When a queue is full: as soon as what comes next would wait too long to be worth accepting.

A bound on the number alone is no bound on the time: thousands are a second's work on one machine
and half a minute's on another. So the pace of the last batches tells how many may wait.
"""

from typing import Final

WAIT_SECONDS_MAX: Final = 0.25
BATCHES: Final = 2  # may always wait, however slow: a burst is no overload
# Until large batches have told: what a quick machine needs for an item.
ITEM_SECONDS_ASSUMED: Final = 0.0002
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
