"""Where charges wait for their batch, and what becomes of a batch that cannot be decided at once.

A main lane commits batch after batch, in order of arrival, and waits for nobody. Single charges
have one to themselves: the larger their batch, the less a charge costs. Bulk has two, a payer's
charges always in the same: while one waits for the database, the other is prepared.

An account that stays locked elsewhere takes its charges to a side lane of its own, which may wait.
A batch that fails is taken apart, until the item that cannot be processed is answered alone.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any, Final, Protocol

from picopay.charges import service
from picopay.charges.errors import ChargeFailed, Overloaded
from picopay.charges.model import Busy, ChargeCommand, Declined, Outcome
from picopay.charges.service import MerchantLocked, Wait
from picopay.charges.waiting import Item, Waiting, present
from picopay.infra import metrics
from picopay.infra.chain import Chain
from picopay.infra.db import LOST_DATABASE_SECONDS, Db
from picopay.infra.logs import log
from picopay.infra.sqlstates import LOCK_NOT_AVAILABLE, OUT_OF_RANGE, QUERY_CANCELED, sqlstate
from picopay.kernel.errors import Refused
from picopay.ledger.errors import AccountLimit
from picopay.ledger.model import AccountId

BATCH_MAX: Final = 256
BULK_LANES: Final = 2
SIDE_LANES_MAX: Final = 8  # at work at a time
ISOLATIONS_MAX: Final = 4  # likewise
# A payer found locked is most likely in another process's batch, and soon free: its charges leave
# the main lane only after this time.
BUSY_SECONDS: Final = 0.03
BUSY_PAUSE_SECONDS: Final = 0.002
PATIENCE_SECONDS_MIN: Final = 0.2


class Commit(Protocol):
    """Decides and writes a batch; outcomes in the order of the commands."""

    async def __call__(
        self,
        commands: Sequence[ChargeCommand],
        wait: Wait,
        chain: Chain | None,
        patience_seconds: float,
    ) -> list[Outcome]: ...


class Lanes:
    def __init__(self, db: Db, commit: Commit) -> None:
        self._db = db
        self._commit = commit
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._singles = _MainLane(db)
        self._bulk = [_MainLane(db) for _ in range(BULK_LANES)]
        self._mains = [self._singles, *self._bulk]
        self._running = [asyncio.create_task(self._run(lane)) for lane in self._mains]
        self._side: dict[AccountId, deque[Item]] = {}  # by the payer or merchant that is awaited
        self._side_slots = asyncio.Semaphore(SIDE_LANES_MAX)
        self._isolation_slots = asyncio.Semaphore(ISOLATIONS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, waiting: Waiting) -> None:
        for item in waiting.items():
            bulk = self._bulk[hash(item.command.payer) % BULK_LANES]
            (bulk if waiting.bulk else self._singles).put(item)

    async def close(self) -> None:
        """Answer everything that was put, then stop."""
        self._closing = True
        for lane in self._mains:
            lane.arrived.set()
        await asyncio.gather(*self._running)
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _run(self, lane: "_MainLane") -> None:
        while not self._closing or not lane.empty:
            if lane.empty:
                await lane.chain.rest()
                lane.arrived.clear()
                await lane.arrived.wait()
            items = present(await self._unobstructed(lane.take()), self._loop.time())
            if items and not await self._attempt(items, Wait.FOR_NOBODY, lane):
                self._in_background(self._isolate(items, Wait.FOR_NOBODY))
            if lane.only_busy:
                await asyncio.sleep(BUSY_PAUSE_SECONDS)
        await lane.chain.rest()

    async def _unobstructed(self, items: list[Item]) -> list[Item]:
        """Without those whose accounts are waited for already: these go behind who waits."""
        if not self._side:
            return items
        free: list[Item] = []
        obstructed: list[Item] = []
        for item in items:
            (obstructed if self._awaited(item) else free).append(item)
        await self._put_aside(obstructed, lambda item: self._awaited(item) or item.command.payer)
        return free

    def _awaited(self, item: Item) -> AccountId | None:
        accounts = (item.command.payer, item.command.merchant)
        return next((account for account in accounts if account in self._side), None)

    async def _run_side(self, account_id: AccountId, queue: deque[Item]) -> None:
        """Everything that waits for one account, batch after batch, until none is left."""
        while queue:
            wait = Wait.FOR_PAYERS
            async with self._side_slots:
                items = present(_taken(queue, BATCH_MAX), self._loop.time())
                if items and account_id == items[0].command.merchant:
                    wait = Wait.FOR_MERCHANTS
                decided = not items or await self._attempt(items, wait)
            if not decided:
                await self._isolate(items, wait)
        del self._side[account_id]

    async def _isolate(self, items: Sequence[Item], wait: Wait) -> None:
        """Run a failed batch again by halves, down to the one item that cannot be processed."""
        middle = len(items) // 2
        for half in (items[:middle], items[middle:]):
            async with self._isolation_slots:
                there = present(half, self._loop.time())
                alone = len(there) == 1
                decided = not there or await self._attempt(
                    there, Wait.FOR_PAYERS if alone else wait
                )
            if not decided:
                await self._isolate(there, wait)

    async def _attempt(
        self, items: Sequence[Item], wait: Wait, lane: "_MainLane | None" = None
    ) -> bool:
        """Decide the items, or put them aside. False: one may stand in its neighbours' way."""
        try:
            busy = await self._decide(items, wait, lane.chain if lane else None)
        except MerchantLocked:
            await self._put_aside(items, lambda item: item.command.merchant)
        except _Undecided:
            metrics.batches_isolated.inc()
            return False
        else:
            late = lane.put_back(busy) if lane else busy
            await self._put_aside(late, lambda item: item.command.payer)
        return True

    async def _decide(self, items: Sequence[Item], wait: Wait, chain: Chain | None) -> list[Item]:
        """Commit the batch and answer it, but for those that are busy. Never fails for one item.

        Raises `MerchantLocked`, unless that was waited for, and `_Undecided`.
        """
        outcomes: Sequence[Outcome]
        try:
            commands = [item.command for item in items]
            outcomes = await self._commit(commands, wait, chain, self._patience(items))
        except Refused as refused:
            outcomes = [Declined(refused)] * len(items)
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers must be answered
            outcomes = [Declined(_failure(error, items, wait))] * len(items)
        busy: list[Item] = []
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Busy):
                busy.append(item)
            else:
                item.settle(outcome)
        return busy

    async def _put_aside(
        self, items: Sequence[Item], account_of: Callable[[Item], AccountId]
    ) -> None:
        for item in await self._unanswered(items):
            account_id = account_of(item)
            queue = self._side.get(account_id)
            if queue is None:
                queue = self._side[account_id] = deque()
                self._in_background(self._run_side(account_id, queue))
            metrics.side_lane_charges.inc()
            queue.append(item)

    async def _unanswered(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those that have to wait: what was decided before is answered without."""
        if not items:
            return items
        try:
            decisions = await service.replays(self._db, [item.command for item in items])
        except Exception:  # noqa: BLE001 - their batch will meet it too, and tell
            return items
        for item, decision in zip(items, decisions, strict=True):
            if decision is not None:
                item.settle(decision)
        return [item for item, decision in zip(items, decisions, strict=True) if decision is None]

    def _patience(self, items: Sequence[Item]) -> float:
        """How long a lost database is waited for.

        Counted from when the first caller came: a long queue is told together, not in turns.
        """
        waited = self._loop.time() - min(item.waiting.since for item in items)
        return max(PATIENCE_SECONDS_MIN, LOST_DATABASE_SECONDS - waited)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _MainLane:
    def __init__(self, db: Db) -> None:
        self.chain = Chain(db, lambda: not self.empty)
        self.arrived = asyncio.Event()
        self._queue: deque[Item] = deque()
        self._busy_since: dict[AccountId, float] = {}
        self._put_back = 0

    @property
    def empty(self) -> bool:
        return not self._queue

    @property
    def only_busy(self) -> bool:
        return 0 < self._put_back == len(self._queue)

    def put(self, item: Item) -> None:
        self._queue.append(item)
        self.arrived.set()

    def take(self) -> list[Item]:
        return _taken(self._queue, BATCH_MAX)

    def put_back(self, busy: Sequence[Item]) -> list[Item]:
        """Keep the items for the next batch, but for those busy for too long: they are returned."""
        now, before = monotonic(), self._busy_since
        payers = {item.command.payer for item in busy}
        self._busy_since = {payer: before.get(payer, now) for payer in payers}
        late = {payer for payer, since in self._busy_since.items() if now - since > BUSY_SECONDS}
        kept = [item for item in busy if item.command.payer not in late]
        self._queue.extendleft(reversed(kept))
        self._put_back = len(kept)
        return [item for item in busy if item.command.payer in late]


class _Undecided(Exception):
    """The batch failed, and it is not known whose fault it was."""


def _failure(error: Exception, items: Sequence[Item], wait: Wait) -> Refused:
    """What to tell all the items' callers; raises if that is not known yet."""
    if isinstance(error, MerchantLocked) and wait is Wait.FOR_NOBODY:
        raise error
    locked = sqlstate(error) == LOCK_NOT_AVAILABLE
    if isinstance(error, MerchantLocked) or (locked and wait is Wait.FOR_PAYERS):
        return Overloaded("the account is locked elsewhere")
    if sqlstate(error) == QUERY_CANCELED:
        return Overloaded("the database took too long")
    if len(items) == 1 and sqlstate(error) == OUT_OF_RANGE:
        return AccountLimit()
    if len(items) > 1 or locked:
        log.warning("charge.batch_isolated", size=len(items), error=str(error))
        raise _Undecided from error
    log.error("charge.failed", charge_id=str(items[0].command.id), exc_info=error)
    return ChargeFailed(items[0].command.id)


def _taken(queue: deque[Item], most: int) -> list[Item]:
    return [queue.popleft() for _ in range(min(len(queue), most))]
