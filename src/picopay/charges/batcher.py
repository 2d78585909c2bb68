"""Group commit: while one transaction commits, the charges that arrive form the next batch.

A known replay is answered from Redis; everything else waits for its batch in a lane, in a queue
that is bounded.
"""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import orjson

from picopay.charges import rules
from picopay.charges.lanes import Lanes
from picopay.charges.model import Charge, ChargeCommand, Decision, Declined, Replayed
from picopay.charges.waiting import Gone, Waiting
from picopay.idempotency.cache import ReplayCache
from picopay.infra import metrics
from picopay.infra.db import Db, OutcomeUnknown
from picopay.infra.doors import TOLD
from picopay.kernel.errors import Overloaded
from picopay.kernel.money import Money


class Batcher:
    def __init__(self, db: Db, cache: ReplayCache, *, queue_max: int) -> None:
        self._cache = cache
        self._queue_max = queue_max
        self._queued_singles = 0
        self._queued_bulk = 0
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._lanes = Lanes(db)
        metrics.queue_limit.set(queue_max)

    def full(self, inside: int = 0) -> bool:
        """A single charge that comes now is refused, whatever it asks for."""
        return self._lanes.full(inside) or self._queued_singles >= self._queue_max

    async def charge(self, command: ChargeCommand, gone: Gone) -> Decision:
        """The decision on one charge, committed or found again.

        Raises `Overloaded`, or `OutcomeUnknown` when it is cancelled.
        """
        if self.full():
            raise Overloaded(TOLD)
        if (replayed := await self._remembered(command)) is not None:
            return replayed
        self._check_room(self._queued_singles, 1)
        self._queued_singles += 1
        try:
            (decision,) = await self._decided([command], gone, bulk=False)
        except asyncio.CancelledError:  # the server is ending: the batch may have begun or not
            raise OutcomeUnknown("charge", command.id) from None
        finally:
            self._queued_singles -= 1
        self._remember(command, decision)
        return decision

    async def charge_many(self, commands: Sequence[ChargeCommand], gone: Gone) -> list[Decision]:
        """Decisions in the order of the commands, committed in chunks behind single charges.

        Raises `Overloaded`; but bulk never takes the room of single charges. It is not remembered
        in Redis: who repeats it in bulk asks PostgreSQL once for hundreds.
        """
        self._check_room(self._queued_bulk, len(commands))
        self._queued_bulk += len(commands)
        try:
            return await self._decided(commands, gone, bulk=True)
        finally:
            self._queued_bulk -= len(commands)

    async def close(self) -> None:
        """Answer everything that was accepted, then stop."""
        self._closing = True
        await self._lanes.close()

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

    async def _decided(
        self, commands: Sequence[ChargeCommand], gone: Gone, *, bulk: bool
    ) -> list[Decision]:
        if not commands:
            return []
        waiting = Waiting(commands, gone, self._loop, bulk=bulk)
        self._lanes.put(waiting)
        return await waiting.future

    def _remember(self, command: ChargeCommand, decision: Decision) -> None:
        if (key := command.key_id) is not None and not isinstance(decision, Declined):
            self._cache.remember(key, _encode(decision.charge))


def _encode(charge: Charge) -> bytes:
    charge_id, merchant_id, user_id, money, balance_after_minor, key = charge
    row = (charge_id, merchant_id, user_id, *money, balance_after_minor, key)
    return orjson.dumps(row, default=str)  # of the driver's own kind of UUID


def _decode(payload: bytes) -> Charge | None:
    """None for what another version has written: the database knows."""
    try:
        charge_id, merchant_id, user_id, minor, currency, balance_after, key = orjson.loads(payload)
        money = Money(minor, currency)
        return Charge(UUID(charge_id), merchant_id, user_id, money, balance_after, key)
    except (ValueError, TypeError, AttributeError):
        return None
