"""Transactions one after the other on one connection: none is left open in vain."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from picopay.infra.chain import Chain
from picopay.infra.db import ConnectionLost, Db
from picopay.infra.tx import Part, RowsMissing

_STATES = """SELECT state FROM pg_stat_activity
              WHERE application_name = 'picopay' AND datname = current_database()"""


class Loop:
    """Somebody who runs transactions, and says whether there will be another."""

    def __init__(self, db: Db) -> None:
        self.more = False
        self.chain = Chain(db, lambda: self.more)

    async def create_user(self, user_id: int, *, more: bool) -> int:
        """The process of the connection that did it."""
        self.more = more
        async with self.chain.begin() as tx:
            await tx.driver.execute("INSERT INTO users (id) VALUES ($1)", user_id)
            return tx.driver.get_server_pid()


@pytest.fixture
async def loop(alone: None, db: Db) -> AsyncIterator[Loop]:
    loop = Loop(db)
    yield loop
    await loop.chain.rest()


async def users(owner: asyncpg.Connection) -> list[int]:
    return [row["id"] for row in await owner.fetch("SELECT id FROM users ORDER BY id")]


async def states(owner: asyncpg.Connection) -> set[str]:
    return {row["state"] for row in await owner.fetch(_STATES)}


async def test_each_transaction_is_committed_and_the_next_begun_only_if_there_is_one(
    loop: Loop, owner: asyncpg.Connection
) -> None:
    pids = {await loop.create_user(1, more=True), await loop.create_user(2, more=True)}
    assert await users(owner) == [1, 2]
    assert await states(owner) == {"idle in transaction"}

    pids.add(await loop.create_user(3, more=False))
    assert await users(owner) == [1, 2, 3]
    assert await states(owner) == {"idle"}
    assert len(pids) == 1


async def test_a_transaction_begun_in_vain_is_given_up(
    loop: Loop, owner: asyncpg.Connection
) -> None:
    await loop.create_user(1, more=True)
    await loop.chain.rest()
    await loop.chain.rest()
    assert await states(owner) == {"idle"}
    await loop.create_user(2, more=False)
    assert await users(owner) == [1, 2]


async def test_a_failed_transaction_leaves_nothing_and_the_next_begins_anew(
    loop: Loop, owner: asyncpg.Connection
) -> None:
    await loop.create_user(1, more=True)
    with pytest.raises(asyncpg.UniqueViolationError):
        await loop.create_user(1, more=True)
    assert await states(owner) == {"idle"}
    await loop.create_user(2, more=True)
    assert await users(owner) == [1, 2]


async def test_a_connection_that_broke_between_two_is_replaced(
    loop: Loop, owner: asyncpg.Connection
) -> None:
    pid = await loop.create_user(1, more=True)
    await owner.fetch("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises(ConnectionLost):
        await loop.create_user(2, more=True)
    assert await loop.create_user(3, more=True) != pid
    assert await users(owner) == [1, 3]


async def test_parts_share_a_statement_with_their_parameters_numbered_through(db: Db) -> None:
    ten = ", ".join(f"%{n}::int" for n in range(1, 11))
    async with db.begin() as tx:
        await tx.write(
            Part("first", f"SELECT unnest(ARRAY[{ten}]) AS n", list(range(10)), 10),
            Part("second", "SELECT n FROM first WHERE n > %1::int", [6], 3),
        )


async def test_a_part_that_misses_rows_is_named_and_fails_the_transaction(
    db: Db, owner: asyncpg.Connection
) -> None:
    async def write() -> None:
        async with db.begin() as tx:
            insert = "INSERT INTO users (id) SELECT %1::int RETURNING 1"
            none = "INSERT INTO users (id) SELECT 2 WHERE %1::int = 3 RETURNING 1"
            await tx.write(Part("made", insert, [1], 1), Part("changed", none, [2], 1))

    with pytest.raises(RowsMissing) as failed:
        await write()
    assert failed.value.names == {"changed"}
    assert await users(owner) == []
