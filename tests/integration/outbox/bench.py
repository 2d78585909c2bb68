"""The real outbox for a machine whose rules cannot wait, and what it is filled with."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
from hypothesis import strategies as st
from tests.conftest import Stores, empty
from tests.integration.outbox.account import TICK_SECONDS

from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.infra.tx import Tx
from picopay.outbox import service
from picopay.outbox.consumer import Consumer, WhenDead
from picopay.outbox.model import Event, Key, NewEvent

HANDLED: list[int] = []
MOURNED: list[int] = []
BROKEN = ValueError("broken")
T = TypeVar("T")


async def handle(_tx: Tx, events: Sequence[Event]) -> None:
    HANDLED.extend(event.id.int for event in events)


async def handle_and_break(_tx: Tx, _events: Sequence[Event]) -> None:
    raise BROKEN


async def mourn(_tx: Tx, events: Sequence[Event]) -> None:
    MOURNED.extend(event.id.int for event in events)


CONSUMERS = {
    "skips": Consumer("skips", together=handle, on_dead=mourn),
    "halts": Consumer("halts", together=handle, on_dead=mourn, when_dead=WhenDead.HALT),
}
BREAKING = {name: Consumer(name, together=handle_and_break) for name in CONSUMERS}


def a_thing(aggregate: str, consumers: tuple[str, ...], delay: int, ordered: bool) -> NewEvent:  # noqa: FBT001 - drawn
    seconds = delay * TICK_SECONDS
    return NewEvent(new_id(), "thing", aggregate, consumers, uuid4().bytes, seconds, ordered)


new_events = st.builds(
    a_thing,
    st.sampled_from(["a", "b"]),
    st.sampled_from([("skips",), ("halts",), ("skips", "halts")]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([True, True, False]),
)


class Bench:
    """The real thing, for a machine whose rules cannot wait."""

    def __init__(self, stores: Stores) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.db = Db(stores.database_url)
        self.owner: asyncpg.Connection = self.wait(asyncpg.connect(stores.owner_url))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def as_owner(self, statement: str, *arguments: object) -> list[Any]:
        return self.wait(self.owner.fetch(statement, *arguments))

    def empty(self) -> None:
        self.wait(empty(self.owner))

    def append(self, events: Sequence[NewEvent]) -> None:
        async def work() -> None:
            async with self.db.begin() as tx:
                await service.append(tx, events)

        self.wait(work())

    def queue(self) -> list[Any]:
        """All of it, by when it is due, and in how many seconds that is."""
        return self.as_owner(
            """SELECT aggregate, consumer, seq, state, ordered, attempts, releases, lease_token,
                      leased_by, error, extract(epoch FROM available_at - clock_timestamp())
                 FROM outbox_queue ORDER BY available_at"""
        )

    def keys_with_two_heads(self) -> list[Any]:
        return self.as_owner(
            """SELECT aggregate, consumer FROM outbox_queue WHERE ordered AND state <> 'blocked'
                GROUP BY 1, 2 HAVING count(*) > 1"""
        )

    def proofs(self) -> list[Any]:
        return self.as_owner("SELECT aggregate, consumer, seq FROM outbox_consumed")

    def letters(self) -> list[Any]:
        return self.as_owner(
            """SELECT aggregate, consumer, seq, event_id, reason, attempts, error, halts, ordered,
                      resolution FROM dead_letters ORDER BY died_at, id"""
        )

    def id_of(self, key: Key) -> UUID:
        """Of the open letter about it."""
        query = """SELECT id FROM dead_letters WHERE aggregate = $1 AND consumer = $2 AND seq = $3
                      AND resolved_at IS NULL"""
        ((found,),) = self.as_owner(query, *key)
        return found

    def close(self) -> None:
        self.wait(self.owner.close())
        self.wait(self.db.close())
        self._runner.close()
