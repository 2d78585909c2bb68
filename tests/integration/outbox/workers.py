"""Workers on a real database, quick enough to wait for."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from time import monotonic

import asyncpg

from picopay.infra.db import Db
from picopay.infra.ids import new_id, process_name
from picopay.infra.tx import Tx
from picopay.outbox import service
from picopay.outbox.bell import Bell
from picopay.outbox.consumer import Consumer, WhenDead
from picopay.outbox.model import Claim, Event, Holder, NewEvent
from picopay.outbox.relay import Relay, Terms
from picopay.outbox.rules import Policy

OWNER = "test:1:a"
SEEN: list[int] = []


async def note_events(_tx: Tx, events: Sequence[Event]) -> None:
    SEEN.extend(event.seq for event in events)


CONSUMER = Consumer("tests", together=note_events)
HALTING = Consumer("tests", together=note_events, when_dead=WhenDead.HALT)


QUICK = Policy(attempts_max=3, base_delay_seconds=0.05, jitter=0)


@asynccontextmanager
async def working(
    db: Db,
    *consumers: Consumer,
    lease_seconds: float = 30,
    policy: Policy = QUICK,
    bell: Bell | None = None,
) -> AsyncGenerator[Relay]:
    terms = Terms(Holder(process_name(), lease_seconds), policy, lambda: 0.0)
    relay = Relay(db, consumers, terms, bell or Bell())
    try:
        yield relay
    finally:
        await relay.stop(5)


async def eventually(check: Callable[[], object], seconds: float = 10) -> None:
    give_up_at = monotonic() + seconds
    while not check():
        assert monotonic() < give_up_at
        await asyncio.sleep(0.01)


async def drained(owner: asyncpg.Connection, seconds: float = 10, *, but_events: int = 0) -> None:
    """Nothing is owed any more, or so few events."""
    give_up_at = monotonic() + seconds
    while (left := await owner.fetchval("SELECT count(*) FROM outbox_queue")) > but_events:
        assert monotonic() < give_up_at, f"{left} events are left"
        await asyncio.sleep(0.01)


def an_event(
    aggregate: str = "thing:1", *, delay_seconds: float = 0, ordered: bool = False
) -> NewEvent:
    return NewEvent(
        new_id(), "thing.happened", aggregate, ("tests",), b"{}", delay_seconds, ordered
    )


async def append(db: Db, *events: NewEvent) -> None:
    async with db.begin() as tx:
        await service.append(tx, events)


async def claim(db: Db, limit: int = 50, lease_seconds: float = 30) -> list[Claim]:
    return await service.claim(db, CONSUMER, limit, Holder(OWNER, lease_seconds))
