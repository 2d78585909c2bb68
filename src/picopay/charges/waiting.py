"""Callers who wait for the outcomes of their commands."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from picopay.charges.model import ChargeCommand, Decision, Declined
from picopay.infra import metrics, tracing
from picopay.kernel.errors import Overloaded
from picopay.kernel.tuples import new

# A caller who has waited this long is asked whether he is still there before he is charged.
ASK_AFTER_SECONDS: Final = 0.02
# How long a charge waits, since it came, for an account that is locked elsewhere.
LOCKED_SECONDS: Final = 10.0

Gone = Callable[[], bool]


class Waiting:
    """One caller's commands, and the future of their decisions, in the same order."""

    __slots__ = ("_decisions", "_gone", "_open", "bulk", "commands", "future", "since", "span")

    def __init__(
        self,
        commands: Sequence[ChargeCommand],
        gone: Gone,
        loop: asyncio.AbstractEventLoop,
        *,
        bulk: bool,
    ) -> None:
        self.commands = commands
        self.bulk = bulk
        self.since = loop.time()
        self.span = tracing.current()
        self.future: asyncio.Future[list[Decision]] = loop.create_future()
        self._gone = gone
        self._open = len(commands)
        self._decisions: dict[int, Decision] = {}

    def items(self) -> "list[Item]":
        return [new(Item, (command, self, number)) for number, command in enumerate(self.commands)]

    def settle(self, number: int, decision: Decision) -> bool:
        """The last decision to come answers the caller: whether it was this one."""
        self._decisions[number] = decision
        self._open -= 1
        if self._open:
            return False
        if not self.future.done():
            self.future.set_result([self._decisions[n] for n in range(len(self.commands))])
        return True

    def left(self) -> bool:
        return self.future.done() or self._gone()


class Item(NamedTuple):
    """One command and where its decision goes."""

    command: ChargeCommand
    waiting: Waiting
    number: int

    def settle(self, decision: Decision) -> bool:
        return self.waiting.settle(self.number, decision)


def callers(items: Sequence[Item]) -> list[Waiting]:
    """Each once, in the order of their first items: in bulk there are far fewer than items."""
    return list(dict.fromkeys([item.waiting for item in items]))


def present(items: Sequence[Item], now: float) -> Sequence[Item]:
    """Those whose callers are still there; the others are dropped before anything is charged."""
    late = now - ASK_AFTER_SECONDS
    gone = {by for by in callers(items) if by.since <= late and by.left()}
    if not gone:
        return items
    for item in items:
        if item.waiting in gone:
            metrics.callers_gone.inc()
            item.settle(Declined(Overloaded("the caller left before the charge began")))
    return [item for item in items if item.waiting not in gone]


def in_time(items: Sequence[Item], now: float) -> list[Item]:
    """Those that may wait for a locked account some more; the others are told that it is."""
    latest = now - LOCKED_SECONDS
    for item in items:
        if item.waiting.since <= latest:
            item.settle(Declined(Overloaded("the account is locked elsewhere")))
    return [item for item in items if item.waiting.since > latest]
