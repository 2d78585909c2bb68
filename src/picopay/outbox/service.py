"""The engine's transitions. Each is one transaction, and fenced: a lost lease changes nothing."""

from collections.abc import Sequence
from typing import Final
from uuid import uuid4

from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.infra.tx import Tx
from picopay.outbox import chores_store, rules, store
from picopay.outbox.consumer import Consumer, WhenDead, traced
from picopay.outbox.errors import LeaseLost
from picopay.outbox.model import (
    ALL_TIME_SECONDS,
    Claim,
    Depth,
    Holder,
    Key,
    NewEvent,
    Reason,
)
from picopay.outbox.rules import Bury, DeferFor, RetryIn
from picopay.outbox.store import Burial, Lease

SWEPT_MAX: Final = 1000
PRUNED_MAX: Final = 5000


async def append(tx: Tx, events: Sequence[NewEvent]) -> None:
    """Tell the events once the caller's transaction has committed, and only then.

    Who appends to one aggregate from several transactions locks its row first.
    """
    if events:
        await store.append(tx, events)


async def claim(
    db: Db,
    consumer: Consumer,
    limit: int,
    holder: Holder,
    look_back_seconds: float = ALL_TIME_SECONDS,
) -> list[Claim]:
    """Up to `limit` events that came due so recently, oldest first, each for a lease."""
    lease = Lease(holder.lease_seconds, uuid4(), holder.owner)
    async with db.read() as tx:
        claims = await store.claim(tx, consumer.name, limit, lease, look_back_seconds)
    return sorted(claims, key=lambda claim: claim.event.id)


async def handle_together(
    db: Db, consumer: Consumer, claims: Sequence[Claim], *, lock_timeout_ms: int | None = None
) -> None:
    """Acknowledgement, proof and effect of all of them in one transaction, or none of it.

    What was proven before is acknowledged only. Raises `LeaseLost`, and whatever the handler does.
    """
    assert consumer.together is not None
    with traced(consumer, [claim.event for claim in claims]):
        async with db.begin(lock_timeout_ms=lock_timeout_ms) as tx:
            settled = await store.settle(tx, claims)
            if lost := {claim.key for claim in claims} - settled.mine:
                raise LeaseLost(lost)
            events = [claim.event for claim in claims if claim.key in settled.new]
            if events:
                await consumer.together(tx, events)
        if events and consumer.on_done is not None:
            consumer.on_done(events)


async def acknowledge(db: Db, claims: Sequence[Claim]) -> set[Key]:
    """Done; returned are those that still were ours."""
    async with db.begin() as tx:
        return await store.acknowledge(tx, claims)


async def renew(db: Db, claims: Sequence[Claim], lease_seconds: float) -> set[Key]:
    """Returned are those that still were ours, without those that are being settled just now."""
    async with db.read() as tx:
        return await store.renew(tx, claims, lease_seconds)


async def release(db: Db, claims: Sequence[Claim]) -> None:
    """Give back what was not begun or not finished, for others to take at once: no attempt."""
    async with db.read() as tx:
        await store.postpone(tx, claims, 0, None, rules.RELEASES_MAX)


async def fail(
    db: Db,
    consumer: Consumer,
    claim: Claim,
    error: BaseException,
    verdict: RetryIn | DeferFor | Bury,
) -> None:
    """Postpone or bury, as `rules.after_failure` has decided. Raises `LeaseLost`."""
    if isinstance(verdict, Bury):
        await bury(db, consumer, claim, verdict.reason, rules.text_of(error))
        return
    releases_max = rules.RELEASES_MAX if isinstance(verdict, DeferFor) else None
    async with db.begin() as tx:
        text = rules.text_of(error)
        if not await store.postpone(tx, [claim], verdict.seconds, text, releases_max):
            raise LeaseLost([claim.key])


async def bury(db: Db, consumer: Consumer, claim: Claim, reason: Reason, error: str) -> None:
    """Make it a dead letter, together with what that means to its consumer. Raises `LeaseLost`."""
    halt = consumer.when_dead is WhenDead.HALT
    async with db.begin() as tx:
        if not await store.bury(tx, claim, Burial(new_id(), reason, error, halt)):
            raise LeaseLost([claim.key])
        if consumer.on_dead is not None:
            await consumer.on_dead(tx, [claim.event])
    if consumer.on_buried is not None:
        consumer.on_buried([claim.event])


async def next_due_seconds(
    db: Db, consumer: Consumer, look_back_seconds: float = ALL_TIME_SECONDS
) -> float | None:
    """How long until something is due, overlooking what came due before; None for nothing."""
    async with db.read() as tx:
        return await store.next_due_seconds(tx, consumer.name, look_back_seconds)


async def hold_duty(db: Db, name: str, owner: str, seconds: float) -> bool:
    """Whether this worker, and no other, is to see to a chore."""
    async with db.read() as tx:
        return await chores_store.hold_duty(tx, name, owner, seconds)


async def sweep(db: Db) -> int:
    """Let go what waits for an elder that is gone; how many keys that were."""
    async with db.begin() as tx:
        heads = await chores_store.blocked_heads(tx, SWEPT_MAX)
        await store.unblock(tx, heads)
    return len(heads)


async def depth(db: Db) -> Depth:
    return await db.query(chores_store.depth)


async def prune(db: Db, days: float) -> int:
    """Delete some of what is older than that and owed to nobody; how many rows that were."""
    async with db.begin() as tx:
        return await chores_store.prune(tx, days, PRUNED_MAX)
