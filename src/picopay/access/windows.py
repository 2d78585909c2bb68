"""Exact sliding windows in memory, bounded: what this process itself has allowed.

Pure but for what it remembers: time is an argument, in microseconds, of a clock that never goes
back.
"""

from bisect import insort
from collections import OrderedDict, deque
from contextlib import suppress
from typing import Final, NamedTuple

from picopay.access.model import ALLOWED, Grant, Spending, Verdict

# Of all subjects together, and so of subjects too: some 40 MB.
MEMBERS_MAX: Final = 200_000


class _Window(NamedTuple):
    window_us: int
    members: deque[tuple[int, bytes]]  # oldest first


class Windows:
    """Beyond `members_max` whoever was allowed something longest ago is forgotten."""

    def __init__(self, members_max: int = MEMBERS_MAX) -> None:
        self._members_max = members_max
        self._members = 0
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def __len__(self) -> int:
        return self._members

    def take(self, grant: Grant, now_us: int) -> Verdict:
        """Note the grant, as of its own time, if all its rules allow it now."""
        verdict = ALLOWED
        for spending in grant.spent:
            wait_us = self._wait_us(spending, now_us)
            if wait_us > verdict.wait_us:
                verdict = Verdict(spending.rule, wait_us)
        if verdict.limited_by is None:
            self._note(grant)
            self._forget(now_us)
        return verdict

    def give_back(self, grant: Grant) -> None:
        for _, key in grant.spent:
            window = self._windows.get(key)
            if window is None:
                continue
            with suppress(ValueError):  # forgotten meanwhile, or given back before
                window.members.remove((grant.at_us, grant.member))
                self._members -= 1
            if not window.members:
                del self._windows[key]

    def _wait_us(self, spending: Spending, now_us: int) -> int:
        window = self._windows.get(spending.key)
        if window is None:
            return 0
        members = window.members
        while members and members[0][0] <= now_us - window.window_us:
            members.popleft()
            self._members -= 1
        excess = len(members) - spending.rule.limit
        return members[excess][0] + window.window_us - now_us if excess >= 0 else 0

    def _note(self, grant: Grant) -> None:
        for rule, key in grant.spent:
            window = self._windows.get(key)
            if window is None:
                window = self._windows[key] = _Window(rule.window_us, deque())
            insort(window.members, (grant.at_us, grant.member))
            self._windows.move_to_end(key)
            self._members += 1

    def _forget(self, now_us: int) -> None:
        """Those at the front who have nothing left to remember, and whoever is too much."""
        while self._windows:
            oldest = next(iter(self._windows.values()))
            over = not oldest.members or oldest.members[-1][0] <= now_us - oldest.window_us
            if not over and self._members <= self._members_max:
                return
            self._windows.popitem(last=False)
            self._members -= len(oldest.members)
