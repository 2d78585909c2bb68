"""Connections cut by PostgreSQL, idle or at work: charges are run again, and nobody notices."""

import asyncio
from time import monotonic

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from tests.conftest import Stores
from tests.races.inprocess import charge_all, new_user
from tests.races.load import Wish
from tests.races.truth import assert_each_charged_once, assert_ledger_clean

from picopay.infra.db import ConnectionLost, Db

TRIALS = 40
_OURS = "FROM pg_stat_activity WHERE application_name = 'picopay' AND datname = current_database()"
OURS = f"SELECT count(*) {_OURS}"
CUT = f"SELECT count(pg_terminate_backend(pid)) {_OURS}"


async def test_charges_go_on_while_their_connections_are_cut(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, stores: Stores, db: Db
) -> None:
    user = await new_user(client, 1, 1000)
    wishes: list[Wish] = []
    cut = 0
    for trial in range(TRIALS):
        mine = [Wish.of(user) for _ in range(5)]
        wishes += mine

        async def cut_soon(after_ms: int) -> int:
            await asyncio.sleep(after_ms / 1000)
            return await owner.fetchval(CUT)

        # At the same moment, and at several later ones while the charges are under way.
        *answers, number = await asyncio.gather(
            charge_all(client, mine), charge_all(client, mine), cut_soon(trial % 8)
        )
        cut += number
        assert {a.status_code for part in answers for a in part} == {200}
    assert cut > TRIALS / 2
    await assert_each_charged_once(stores.database_url, wishes, 1000)
    await assert_ledger_clean(db)


# What PostgreSQL says when it is shut down; the connection is closed a moment later.
_FATAL = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
LAST_WORDS = b"E" + (len(_FATAL) + 4).to_bytes(4, "big") + _FATAL


async def hear_last_words(db: Db) -> None:
    """The idle connection that will be used next has been told, and is not closed yet."""
    async with db.read() as tx:
        driver = tx.driver
    driver._protocol.data_received(LAST_WORDS)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]


async def test_a_connection_that_heard_the_end_of_its_server_counts_as_lost(db: Db) -> None:
    await hear_last_words(db)
    with pytest.raises(ConnectionLost):
        async with db.begin():
            pass
    assert await db.ping()
    await hear_last_words(db)
    with pytest.raises(ConnectionLost):
        await db.ping()


async def test_a_charge_on_a_connection_that_heard_the_end_of_its_server_is_run_again(
    client: httpx2.AsyncClient, app: FastAPI, stores: Stores
) -> None:
    wish = Wish.of(await new_user(client, 1, 1000))
    await hear_last_words(app.state.reserved)
    (answer,) = await charge_all(client, [wish])
    assert answer.status_code == 200
    await assert_each_charged_once(stores.database_url, [wish], 1000)


async def test_a_connection_that_heard_the_end_of_its_server_leaves_it_ready(
    client: httpx2.AsyncClient, app: FastAPI
) -> None:
    await hear_last_words(app.state.reserved)
    assert (await client.get("/readyz")).status_code == 200


IDLE = 5
CLOSED_SECONDS_MAX = 5


async def lose_one_of_many(db: Db, owner: asyncpg.Connection) -> None:
    """Several connections lie idle; the one to be used next is ended by the server."""

    async def use() -> int:
        async with db.read() as tx:
            return await tx.driver.fetchval("SELECT pg_backend_pid() FROM pg_sleep(0.2)")

    await asyncio.gather(*(use() for _ in range(IDLE)))
    assert await owner.fetchval(OURS) >= IDLE
    await owner.execute("SELECT pg_terminate_backend($1, 1000)", await use())
    with pytest.raises(ConnectionLost):
        await db.ping()


async def assert_as_many_as_in_use(db: Db, owner: asyncpg.Connection, number: int) -> None:
    assert await db.ping()
    give_up_at = monotonic() + CLOSED_SECONDS_MAX
    while (left := await owner.fetchval(OURS)) != number:
        assert monotonic() < give_up_at, f"{left} connections, not {number}"
        await asyncio.sleep(0.02)


@pytest.mark.usefixtures("alone")
async def test_idle_connections_that_were_forgotten_are_closed(
    db: Db, owner: asyncpg.Connection
) -> None:
    await lose_one_of_many(db, owner)
    await assert_as_many_as_in_use(db, owner, 1)


@pytest.mark.usefixtures("alone")
async def test_a_connection_in_use_when_the_others_were_forgotten_is_closed_after_its_use(
    db: Db, owner: asyncpg.Connection
) -> None:
    async with db.begin() as tx:
        await lose_one_of_many(db, owner)
        await assert_as_many_as_in_use(db, owner, 2)
        assert await tx.driver.fetchval("SELECT true")
    await assert_as_many_as_in_use(db, owner, 1)
