"""How fast the machine itself is, from moment to moment: a rented one is not always as fast.

Told by the processor's time for the same small piece of work. So whoever else wants the processor
is not counted, only what it is slowed down to.
"""

import time
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from statistics import median
from typing import Final

_WORK: Final = range(400)  # some 9 us
SLOWED: Final = 2  # times: less than half of the usual pace


class Pace:
    """What was noted, as often as `note` was called."""

    def __init__(self) -> None:
        self._at = array("d")
        self._took = array("d")

    def note(self) -> None:
        at, began = time.monotonic(), time.thread_time()
        sum(_WORK)
        self._took.append(time.thread_time() - began)
        self._at.append(at)

    def history(self) -> "History":
        return History(self._at, self._took)


class History:
    """Of at least one note. Times are `time.monotonic()`'s."""

    def __init__(self, at: Sequence[float], took: Sequence[float]) -> None:
        usual = median(took)
        self._at = at
        self._until = array("d", accumulate((each / usual for each in took), initial=0.0))

    def slowed(self, begins: float, ends: float) -> float:
        """By how many times the machine was slower than usual, in the mean between these.

        What was noted last before them counts too.
        """
        first = max(bisect_right(self._at, begins) - 1, 0)
        after = max(bisect_right(self._at, ends), first + 1)
        return (self._until[after] - self._until[first]) / (after - first)


def main() -> None:
    """The machine's own pace for ten seconds, with one core at work, in parts of 20 ms."""
    pace, part_seconds, parts = Pace(), 0.02, 500
    began = time.monotonic()
    while time.monotonic() < began + parts * part_seconds:
        pace.note()
    history = pace.history()
    begins = [began + number * part_seconds for number in range(parts)]
    slowed = [history.slowed(each, each + part_seconds) for each in begins]
    share = sum(each > SLOWED for each in slowed) / parts
    print(f"at less than half of its usual pace in {share:.1%} of the time")
    print(f"in 20 ms it was slower by {max(slowed):.1f} times at most")


if __name__ == "__main__":
    main()
