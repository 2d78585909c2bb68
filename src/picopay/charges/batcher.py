"""Group commit: while one transaction commits, the charges that arrive form the next batch.

One main lane decides and commits batches; nothing in it waits for a payer. A payer that is locked
elsewhere takes its charges to a side lane of its own, which may wait. A batch that fails is taken
apart there too, until the item that cannot be processed stands alone and is answered alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final
from uuid import UUID

import orjson

from picopay.charges import rules, service
from picopay.charges.errors import ChargeFailed, Overloaded
from picopay.charges.model import (
    Approved,
    Busy,
    Charge,
    ChargeCommand,
    Decision,
    Declined,
    Outcome,
    Replayed,
)
from picopay.idempotency.cache import ReplayCache
from picopay.infra import metrics
from picopay.infra.db import LOCK_NOT_AVAILABLE, LOST_DATABASE_SECONDS, Db, sqlstate
from picopay.infra.logs import log
from picopay.kernel.errors import Refused
from picopay.kernel.money import Money
from picopay.ledger.model import AccountId

BATCH_MAX: Final = 256
CHUNK_MAX: Final = 500  # of a bulk request
SIDE_LANES_MAX: Final = 8
# A caller who has waited this long is asked whether he is still there before he is charged.
ASK_AFTER_SECONDS: Final = 0.02
PATIENCE_SECONDS_MIN: Final = 0.2

Gone = Callable[[], Awaitable[bool]]


@dataclass(slots=True)
class Waiting:
    """Commands of one caller, and the future of their outcomes, one for each."""

    commands: Sequence[ChargeCommand]
    gone: Gone
    since: float
    future: "asyncio.Future[list[Outcome]]"


class Batcher:
    def __init__(self, db: Db, cache: ReplayCache, *, queue_max: int) -> None:
        self._db = db
        self._cache = cache
        self._queue_max = queue_max
        self._queued_singles = 0
        self._queued_bulk = 0
        self._singles: deque[Waiting] = deque()
        self._bulk: deque[Waiting] = deque()
        self._side: dict[AccountId, deque[Waiting]] = {}
        self._side_slots = asyncio.Semaphore(SIDE_LANES_MAX)
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._closing = False
        self._main = asyncio.create_task(self._run())

    async def charge(self, command: ChargeCommand, gone: Gone) -> Decision:
        """The decision on one charge, committed or found again. Raises `Overloaded`."""
        if (replayed := await self._remembered(command)) is not None:
            return replayed
        self._check_room(self._queued_singles, 1)
        self._queued_singles += 1
        try:
            if command.payer in self._side:  # behind those who wait there already
                return await self._sideline(command, gone)
            (outcome,) = await self._enqueue([command], gone, self._singles)
            return await self._sideline(command, gone) if isinstance(outcome, Busy) else outcome
        finally:
            self._queued_singles -= 1

    async def charge_many(self, commands: Sequence[ChargeCommand], gone: Gone) -> list[Decision]:
        """Decisions in the order of the commands, committed in chunks behind single charges.

        Raises `Overloaded`; but bulk never takes the room of single charges.
        """
        self._check_room(self._queued_bulk, len(commands))
        self._queued_bulk += len(commands)
        try:
            chunks = [commands[i : i + CHUNK_MAX] for i in range(0, len(commands), CHUNK_MAX)]
            parts = await asyncio.gather(*(self._enqueue(c, gone, self._bulk) for c in chunks))
            outcomes = list(chain.from_iterable(parts))
            busy = [c for c, o in zip(commands, outcomes, strict=True) if isinstance(o, Busy)]
            late = iter(await asyncio.gather(*(self._sideline(c, gone) for c in busy)))
            return [next(late) if isinstance(o, Busy) else o for o in outcomes]
        finally:
            self._queued_bulk -= len(commands)

    async def close(self) -> None:
        """Answer everything that was accepted, then stop."""
        self._closing = True
        self._wake.set()
        await self._main
        while self._side_tasks:
            await asyncio.gather(*self._side_tasks)

    async def _remembered(self, command: ChargeCommand) -> Replayed | None:
        if (key := command.key_id) is None or (payload := await self._cache.peek(key)) is None:
            return None
        charge = _decode(payload)
        decision = None if charge is None else rules.replay(command, charge)
        # Whether a key was reused is for PostgreSQL to say.
        return decision if isinstance(decision, Replayed) else None

    def _check_room(self, queued: int, wanted: int) -> None:
        if self._closing:
            raise Overloaded("the server is shutting down")
        if queued + wanted > self._queue_max:
            raise Overloaded(f"{queued} charges are waiting already")

    async def _enqueue(
        self, commands: Sequence[ChargeCommand], gone: Gone, queue: deque[Waiting]
    ) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        waiting = Waiting(commands, gone, loop.time(), loop.create_future())
        queue.append(waiting)
        self._wake.set()
        return await waiting.future

    async def _sideline(self, command: ChargeCommand, gone: Gone) -> Decision:
        """Decide the charge in its payer's side lane, in the order of arrival there."""
        metrics.side_lane_charges.inc()
        queue = self._side.get(command.payer)
        if queue is None:
            queue = self._side[command.payer] = deque()
            self._in_background(self._run_side(command.payer, queue))
        (decision,) = await self._enqueue([command], gone, queue)
        assert not isinstance(decision, Busy)
        return decision

    async def _run(self) -> None:
        while not self._closing or self._singles or self._bulk:
            if not self._singles and not self._bulk:
                await self._wake.wait()
                self._wake.clear()
                continue
            batch = await _present(self._take())
            if batch and not await self._answer(batch, wait=False):
                metrics.batches_isolated.inc()
                self._in_background(self._isolate(batch, wait=False))

    def _take(self) -> list[Waiting]:
        """Single charges first, and behind them one chunk of the bulk."""
        batch: list[Waiting] = []
        while self._singles and len(batch) < BATCH_MAX:
            batch.append(self._singles.popleft())
        if self._bulk:
            batch.append(self._bulk.popleft())
        return batch

    async def _run_side(self, payer: AccountId, queue: deque[Waiting]) -> None:
        """Everything that waits for one payer, batch after batch, until none is left."""
        await asyncio.sleep(0)  # the first charge is queued right after this task is made
        while queue:
            async with self._side_slots:
                taken = [queue.popleft() for _ in range(min(len(queue), BATCH_MAX))]
                batch = await _present(taken)
                answered = not batch or await self._answer(batch, wait=True)
            if not answered:
                await self._isolate(batch, wait=True)
        del self._side[payer]

    async def _isolate(self, batch: list[Waiting], *, wait: bool) -> None:
        """Run a failed batch again by halves, down to the one item that cannot be processed.

        With `wait`, all of it has one payer, whose side lane waits as long as it takes.
        """
        for half in _halves(batch):
            async with self._side_slots:
                present = await _present(half)
                alone = _size(present) == 1
                answered = not present or await self._answer(present, wait=wait or alone)
            if not answered:
                await self._isolate(present, wait=wait)

    async def _answer(self, batch: list[Waiting], *, wait: bool) -> bool:
        """Commit the batch and answer it. False: an item may stand in its neighbours' way."""
        commands = [command for waiting in batch for command in waiting.commands]
        try:
            outcomes = await self._commit(commands, _patience(batch), wait=wait)
        except Refused as refused:
            outcomes = [Declined(refused)] * len(commands)
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers must be answered
            if wait and sqlstate(error) == LOCK_NOT_AVAILABLE:
                reason: Refused = Overloaded("the account is locked elsewhere")
            elif len(commands) == 1 and sqlstate(error) != LOCK_NOT_AVAILABLE:
                log.exception("charge.failed", charge_id=str(commands[0].id))
                reason = ChargeFailed(commands[0].id)
            else:
                log.warning("charge.batch_isolated", size=len(commands), error=str(error))
                return False
            outcomes = [Declined(reason)] * len(commands)
        _resolve(batch, outcomes)
        return True

    async def _commit(
        self, commands: Sequence[ChargeCommand], patience_seconds: float, *, wait: bool
    ) -> list[Outcome]:
        metrics.queue_depth.set(self._queued_singles + self._queued_bulk)
        metrics.batch_size.observe(len(commands))
        with metrics.batch_seconds.time():
            outcomes = await service.commit_batch(
                self._db, commands, wait=wait, patience_seconds=patience_seconds
            )
        # Soon, that is: while the lane waits for its next answer from the database.
        asyncio.get_running_loop().call_soon(self._remember, commands, outcomes)
        return outcomes

    def _remember(self, commands: Sequence[ChargeCommand], outcomes: Sequence[Outcome]) -> None:
        made = {
            key: _encode(outcome.charge)
            for command, outcome in zip(commands, outcomes, strict=True)
            if (key := command.key_id) is not None and isinstance(outcome, (Approved, Replayed))
        }
        if made:
            self._cache.remember(made)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)


def _patience(batch: Sequence[Waiting]) -> float:
    """How long a lost database is waited for.

    Counted from when the first caller came: a long queue is told together, not batch after batch.
    """
    waited = asyncio.get_running_loop().time() - min(waiting.since for waiting in batch)
    return max(PATIENCE_SECONDS_MIN, LOST_DATABASE_SECONDS - waited)


def _size(batch: Sequence[Waiting]) -> int:
    return sum(len(waiting.commands) for waiting in batch)


def _resolve(batch: Sequence[Waiting], outcomes: Sequence[Outcome]) -> None:
    start = 0
    for waiting in batch:
        end = start + len(waiting.commands)
        if not waiting.future.done():
            waiting.future.set_result(list(outcomes[start:end]))
        start = end


async def _present(batch: list[Waiting]) -> list[Waiting]:
    """Those whose callers are still there; the others are dropped before anything is charged."""
    late = asyncio.get_running_loop().time() - ASK_AFTER_SECONDS
    present: list[Waiting] = []
    for waiting in batch:
        if waiting.future.done() or (waiting.since <= late and await _left(waiting)):
            metrics.callers_gone.inc(len(waiting.commands))
            reason = Declined(Overloaded("the caller left before the charge began"))
            _resolve([waiting], [reason] * len(waiting.commands))
        else:
            present.append(waiting)
    return present


async def _left(waiting: Waiting) -> bool:
    try:
        return await waiting.gone()
    except Exception:  # noqa: BLE001 - a lane must not end because a connection is in a bad way
        return False


def _halves(batch: list[Waiting]) -> list[list[Waiting]]:
    if len(batch) > 1:
        middle = len(batch) // 2
        return [batch[:middle], batch[middle:]]
    if len(batch[0].commands) > 1:
        return [[part] for part in _split(batch[0])]
    return [batch]


def _split(whole: Waiting) -> tuple[Waiting, Waiting]:
    """Two waitings for the halves of one caller's commands; both answered, the whole is."""
    middle = len(whole.commands) // 2
    loop = asyncio.get_running_loop()
    first = Waiting(whole.commands[:middle], whole.gone, whole.since, loop.create_future())
    second = Waiting(whole.commands[middle:], whole.gone, whole.since, loop.create_future())

    def join(_: object) -> None:
        if first.future.done() and second.future.done():
            _resolve([whole], [*first.future.result(), *second.future.result()])

    first.future.add_done_callback(join)
    second.future.add_done_callback(join)
    return first, second


def _encode(charge: Charge) -> bytes:
    charge_id, merchant_id, user_id, money, balance_after_minor, key = charge
    return orjson.dumps((str(charge_id), merchant_id, user_id, *money, balance_after_minor, key))


def _decode(payload: bytes) -> Charge | None:
    """None for what another version has written: the database knows."""
    try:
        charge_id, merchant_id, user_id, minor, currency, balance_after, key = orjson.loads(payload)
        money = Money(minor, currency)
        return Charge(UUID(charge_id), merchant_id, user_id, money, balance_after, key)
    except (ValueError, TypeError, AttributeError):
        return None
