"""Where charges wait for their batch, and what becomes of a batch that cannot be decided at once.

A main lane commits batch after batch, in order of arrival, and waits for no payer. Single charges
have one to themselves: the larger their batch, the less a charge costs. Bulk has three, two while
single charges come, and a payer's charges are in one of them: while some lanes wait for the
database, another is prepared.

Who needs an account that stays locked elsewhere is set aside: one lane asks again for payers, and
merchants are watched; whoever waits holds nothing, and for ten seconds at most.
A batch that fails is taken apart, until the item that cannot be processed is answered alone.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from math import inf
from typing import Any, Final

from picopay.charges import service
from picopay.charges.errors import ChargeFailed
from picopay.charges.merchants import LockedMerchants
from picopay.charges.model import Busy, Decision, Declined, Outcome
from picopay.charges.queues import BATCH_MAX, BULK_BATCH_MAX, Arrivals, Late
from picopay.charges.service import MerchantLocked
from picopay.charges.waiting import Item, Waiting, callers, in_time, present
from picopay.idempotency.model import KeyId
from picopay.infra import metrics, tracing
from picopay.infra.chain import Chain
from picopay.infra.db import LOST_DATABASE_SECONDS, Db
from picopay.infra.logs import log
from picopay.infra.shedding import Pace
from picopay.infra.sqlstates import LOCK_NOT_AVAILABLE, OUT_OF_RANGE, QUERY_CANCELED, sqlstate
from picopay.kernel.errors import Overloaded, Refused
from picopay.ledger.errors import AccountLimit

BULK_LANES: Final = 3
ALONE_SECONDS: Final = 0.5  # without a single charge, and bulk takes more lanes, larger batches
ISOLATIONS_MAX: Final = 4  # at work at a time
# Others wait behind what is taken apart.
ISOLATED_LOCK_TIMEOUT_MS: Final = 25
# A key found held is refused at once for so long: every look for it costs a batch's lock timeout.
HELD_KEY_SECONDS: Final = 2.0
HELD_KEYS_MAX: Final = 10_000
BUSY_PAUSE_SECONDS: Final = 0.002
PATIENCE_SECONDS_MIN: Final = 0.2
# To write an answer costs more than to decide it: between so many, what has arrived is looked at.
ANSWERS_A_TURN: Final = 32
# Where the queue has been full, places are filled again by so many a turn.
LET_IN_AT_A_TIME: Final = 32
HELD: Final = "the idempotency key, or something else that this needs, is held by somebody else"


class Lanes:
    def __init__(self, db: Db) -> None:
        self._db = db
        self._loop = asyncio.get_running_loop()
        self._singles = _Lane(db, Arrivals())
        self._bulk = [_Lane(db, Arrivals()) for _ in range(BULK_LANES)]
        self._late = Late()
        self._late_lane = _Lane(db, self._late)
        self._lanes = [self._singles, *self._bulk, self._late_lane]
        self._merchants = LockedMerchants(db, self._enter)
        self._held_keys: dict[KeyId, float] = {}  # when each was found held by somebody else
        self._isolation_slots = asyncio.Semaphore(ISOLATIONS_MAX)
        self._apart: set[asyncio.Future[list[Decision]]] = set()  # wait for a locked account
        self._callers: dict[asyncio.Future[list[Decision]], int] = {}
        self._undecided = 0
        self._undecided_told = True
        self._enough: int | None = None  # inside, in this turn of the event loop
        self._single_came = -inf
        self._running = [asyncio.create_task(self._run(lane)) for lane in self._lanes]
        self._tasks: set[asyncio.Task[None]] = set()

    def full(self, inside: int) -> bool:
        """Single charges that come now would wait too long; accounts locked elsewhere apart.

        `inside` are all that were let in and not answered yet: a batch of them is at work.
        """
        room, moving = self._singles.pace.room, inside - len(self._apart)
        if len(self._singles.queue) >= room or moving >= room + BATCH_MAX:
            return True
        return moving >= room and self._enough_this_turn(moving)

    def _enough_this_turn(self, moving: int) -> bool:
        """A batch leaves at once, and who refills its places at once keeps all others waiting."""
        if self._enough is None:
            self._enough = moving + LET_IN_AT_A_TIME
            self._loop.call_soon(self._begin_turn)
        return moving >= self._enough

    def _begin_turn(self) -> None:
        self._enough = None

    def put(self, waiting: Waiting) -> None:
        self._callers[waiting.future] = len(waiting.commands)
        waiting.future.add_done_callback(self._answered)
        self._count(len(waiting.commands))
        for item in waiting.items():
            self._enter(item)

    def _answered(self, caller: "asyncio.Future[list[Decision]]") -> None:
        self._apart.discard(caller)
        self._count(-self._callers.pop(caller))

    def _count(self, more: int) -> None:
        self._undecided += more
        if self._undecided_told:  # once a turn of the event loop, however many come and go in it
            self._undecided_told = False
            self._loop.call_soon(self._tell_undecided)

    def _tell_undecided(self) -> None:
        self._undecided_told = True
        metrics.queue_depth.set(self._undecided)

    def _enter(self, item: Item) -> None:
        if item.waiting.bulk:
            lanes = BULK_LANES if self._alone(item.waiting.since) else BULK_LANES - 1
            self._bulk[hash(item.command.payer) % lanes].put(item)
        else:
            self._single_came = item.waiting.since
            self._singles.put(item)

    async def close(self) -> None:
        """Answer everything that was put, then stop."""
        while self._callers:
            await asyncio.wait(self._callers)
        for lane in self._lanes:
            lane.stop()
        await asyncio.gather(*self._running)
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _run(self, lane: "_Lane") -> None:
        while await lane.filled():
            now = self._loop.time()
            items = present(lane.queue.take(self._batch_max(lane, now)), now)
            if lane is self._late_lane:
                items = in_time(items, now)
            else:
                items = await self._unobstructed(items)
            busy = await self._attempt(items, lane.chain) if items else []
            await self._set_aside(lane.queue.put_back(busy))
            lane.pace.note(len(items), self._loop.time() - now)
            if lane.queue.only_busy:
                await asyncio.sleep(BUSY_PAUSE_SECONDS)

    def _batch_max(self, lane: "_Lane", now: float) -> int:
        return BULK_BATCH_MAX if lane in self._bulk and self._alone(now) else BATCH_MAX

    def _alone(self, now: float) -> bool:
        """Bulk may take what it can: no single charge has come of late."""
        return now - self._single_came > ALONE_SECONDS

    async def _unobstructed(self, items: Sequence[Item]) -> Sequence[Item]:
        """Without those whose accounts are waited for already: these go behind who waits."""
        if self._held_keys:
            items = self._without_held_keys(items)
        if not self._late and not self._merchants:
            return items
        free: list[Item] = []
        obstructed: list[Item] = []
        for item in items:
            (obstructed if self._awaited(item) else free).append(item)
        await self._set_aside(obstructed)
        return free

    def _without_held_keys(self, items: Sequence[Item]) -> list[Item]:
        since = self._loop.time() - HELD_KEY_SECONDS
        self._held_keys = {key: at for key, at in self._held_keys.items() if at > since}
        free: list[Item] = []
        for item in items:
            if item.command.key_id in self._held_keys:
                item.settle(Declined(Overloaded(HELD)))
            else:
                free.append(item)
        return free

    def _awaited(self, item: Item) -> bool:
        return item.command.payer in self._late or item.command.merchant in self._merchants

    async def _attempt(self, items: Sequence[Item], chain: Chain | None = None) -> list[Item]:
        """Decide the items and answer them; returned are those whose payer is locked elsewhere.

        Items of a locked merchant are set aside, and a batch that fails is taken apart.
        """
        outcomes: Sequence[Outcome]
        try:
            outcomes = await self._commit(items, chain)
        except MerchantLocked:
            await self._set_aside(items, merchant_locked=True)
            return []
        except Refused as refused:
            outcomes = [Declined(refused)] * len(items)
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers must be answered
            if (reason := _reason(error, items)) is None:
                self._in_background(self._isolate(items))
                return []
            self._note_held_key(error, items[0])
            outcomes = [Declined(reason)] * len(items)
        return self._answer(items, outcomes)

    def _answer(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> list[Item]:
        """Settle the items that were decided; returned are the others."""
        busy: list[Item] = []
        decided: list[tuple[Item, Decision]] = []
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Busy):
                busy.append(item)
            else:
                decided.append((item, outcome))
        self._settle(decided)
        return busy

    def _settle(self, decided: Sequence[tuple[Item, Decision]]) -> None:
        answers = 0
        for number, (item, decision) in enumerate(decided, 1):
            answers += item.settle(decision)
            if answers == ANSWERS_A_TURN:
                self._loop.call_soon(self._settle, decided[number:])
                return

    def _note_held_key(self, error: Exception, alone: Item) -> None:
        key = alone.command.key_id
        if key is None or sqlstate(error) != LOCK_NOT_AVAILABLE:
            return
        if len(self._held_keys) < HELD_KEYS_MAX:
            self._held_keys[key] = self._loop.time()

    async def _commit(self, items: Sequence[Item], chain: Chain | None) -> list[Outcome]:
        commands, patience = [item.command for item in items], self._patience(items)
        metrics.batch_size.observe(len(items))
        spans = (item.waiting.span for item in items)
        with metrics.batch_seconds.time(), tracing.batch("charges", spans):
            return await service.commit_batch(
                self._db,
                commands,
                chain=chain,
                lock_timeout_ms=ISOLATED_LOCK_TIMEOUT_MS,
                patience_seconds=patience,
            )

    async def _isolate(self, items: Sequence[Item]) -> None:
        """Run a failed batch again by halves, down to the one item that cannot be processed."""
        metrics.batches_isolated.inc()
        middle = len(items) // 2
        for half in (items[:middle], items[middle:]):
            async with self._isolation_slots:
                now = self._loop.time()
                there = in_time(present(half, now), now)
                busy = await self._attempt(there) if there else []
            await self._set_aside(busy)

    async def _set_aside(self, items: Sequence[Item], *, merchant_locked: bool = False) -> None:
        """Wait for the items' accounts; but what was decided before is answered at once."""
        for item in await self._new(items):
            metrics.set_aside.inc()
            if not item.waiting.bulk:
                self._apart.add(item.waiting.future)
            if merchant_locked or item.command.merchant in self._merchants:
                watched = bool(self._merchants)
                self._merchants.put(item)
                if not watched:
                    self._in_background(self._merchants.watch())
            else:
                self._late_lane.put(item)

    async def _new(self, items: Sequence[Item]) -> Sequence[Item]:
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
        waited = self._loop.time() - min(caller.since for caller in callers(items))
        return max(PATIENCE_SECONDS_MIN, LOST_DATABASE_SECONDS - waited)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Lane:
    """A queue, and the transactions that its batches are decided in, one after the other."""

    def __init__(self, db: Db, queue: Arrivals | Late) -> None:
        self.queue = queue
        self.pace = Pace(BATCH_MAX)
        self.chain = Chain(db, lambda: len(queue) > 0)
        self._arrived = asyncio.Event()
        self._stopped = False

    def put(self, item: Item) -> None:
        self.queue.put(item)
        self._arrived.set()

    def stop(self) -> None:
        self._stopped = True
        self._arrived.set()

    async def filled(self) -> bool:
        """Wait, without a transaction, until something is queued. False: nothing ever will be."""
        while not self.queue:
            self._arrived.clear()
            await self.chain.rest()
            if self._stopped:
                return False
            await self._arrived.wait()
        return True


def _reason(error: Exception, items: Sequence[Item]) -> Refused | None:
    """What to tell all the items' callers; None as long as it is not known whose fault it was."""
    state = sqlstate(error)
    if state == QUERY_CANCELED:
        return Overloaded("the database took too long")
    if len(items) > 1:
        log.warning("charge.batch_isolated", size=len(items), error=str(error))
        return None
    if state == LOCK_NOT_AVAILABLE:
        return Overloaded(HELD)
    if state == OUT_OF_RANGE:
        return AccountLimit()
    log.error("charge.failed", charge_id=str(items[0].command.id), exc_info=error)
    return ChargeFailed(items[0].command.id)
