"""What the database says, asked past the application."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import asynccontextmanager

import asyncpg
from tests.races.load import Wish

from picopay.cli.ledger import verify
from picopay.infra.db import Db


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def charges_of(url: str, keys: Collection[str]) -> Counter[str]:
    """How many charges each of the keys has made."""
    async with connected(url) as connection:
        rows = await connection.fetch(
            "SELECT idempotency_key FROM charges WHERE idempotency_key = ANY($1)", list(keys)
        )
    return Counter(row[0] for row in rows)


async def balance(url: str, user_id: int) -> int:
    """In minor units."""
    return (await balances(url, [user_id]))[user_id]


async def balances(url: str, user_ids: Iterable[int]) -> dict[int, int]:
    """Likewise, of several users, who each have one currency."""
    async with connected(url) as connection:
        rows = await connection.fetch(
            "SELECT substr(owner, length('user:') + 1)::bigint, credits - debits FROM accounts"
            " WHERE owner = ANY($1)",
            [f"user:{user_id}" for user_id in user_ids],
        )
    found = {row[0]: int(row[1]) for row in rows}
    assert len(found) == len(rows), "an account of another currency"
    return found


async def assert_each_charged_once(url: str, wishes: Iterable[Wish], deposit: int) -> None:
    """Every wish was charged exactly once, and the balances show just that."""
    wanted = {wish.key: wish for wish in wishes}
    assert await charges_of(url, wanted) == Counter(wanted.keys())
    spent = Counter[int]()
    for wish in wanted.values():
        spent[wish.user_id] += wish.amount
    left = {user_id: 100 * (deposit - amount) for user_id, amount in spent.items()}
    assert await balances(url, left) == left


@asynccontextmanager
async def locked(
    url: str, *owners: str, currency: str = "USD"
) -> AsyncGenerator[asyncpg.Connection]:
    """Somebody else holds the owners' accounts locked; the connection may let go earlier."""
    async with connected(url) as connection:
        await connection.execute("BEGIN")
        query = (
            "SELECT owner FROM accounts WHERE owner = ANY($1) AND currency = $2"
            " ORDER BY owner FOR UPDATE"
        )
        assert len(await connection.fetch(query, owners, currency)) == len(owners)
        try:
            yield connection
        finally:
            await connection.execute("ROLLBACK")


async def wait_for_waiters(url: str, number: int, *, seconds: float = 10) -> None:
    """Until that many connections wait for a lock."""
    deadline = asyncio.get_running_loop().time() + seconds
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with connected(url) as connection:
        while await connection.fetchval(query) < number:
            assert asyncio.get_running_loop().time() < deadline, f"never {number} waiting"
            await asyncio.sleep(0.02)


async def assert_ledger_clean(db: Db) -> None:
    """All that `picopay ledger check` verifies."""
    reports = await verify(db)
    assert sum(report.checked for report in reports) > 0
    assert [report for report in reports if report.drifts] == []
