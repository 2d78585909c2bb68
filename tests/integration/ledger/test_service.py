"""The ledger on a real database: postings, balances, locks, and totals that cannot drift."""

import asyncio

import asyncpg
import pytest
from tests.builders import a_move

from picopay.infra.db import Db
from picopay.ledger import service
from picopay.ledger.errors import AccountNotFound, InsufficientFunds
from picopay.ledger.model import AccountId, Move
from picopay.ledger.rules import Book

USER = AccountId("user:1", "USD")
MERCHANT = AccountId("merchant:default", "USD")
WORLD = AccountId("world", "USD")


async def post(db: Db, *moves: Move) -> None:
    """As a use case does: lock, decide, write, in one transaction."""
    async with db.begin() as tx:
        sides = {side for move in moves for side in (move.debit, move.credit)}
        book = Book(await service.lock_or_open(tx, sides))
        for move in moves:
            book.post(move)
        await service.write(tx, book)


async def accounts(owner: asyncpg.Connection) -> dict[str, tuple[int, int, int]]:
    rows = await owner.fetch("SELECT owner, debits, credits, version FROM accounts")
    return {row["owner"]: (row["debits"], row["credits"], row["version"]) for row in rows}


async def test_postings_and_totals_are_written_together(db: Db, owner: asyncpg.Connection) -> None:
    await post(db, a_move(1000, debit="world", credit="user:1"), a_move(300), a_move(200))
    assert await accounts(owner) == {
        "world": (1000, 0, 1),
        "user:1": (500, 1000, 3),
        "merchant:default": (0, 500, 2),
    }
    query = """SELECT debit_owner, amount, debit_balance, debit_version, credit_balance,
                      credit_version FROM postings ORDER BY id"""
    assert [tuple(row) for row in await owner.fetch(query)] == [
        ("world", 1000, -1000, 1, 1000, 1),
        ("user:1", 300, 700, 2, 300, 1),
        ("user:1", 200, 500, 3, 500, 2),
    ]


async def test_entries_show_both_sides_and_sum_to_zero(db: Db, owner: asyncpg.Connection) -> None:
    await post(db, a_move(1000, debit="world", credit="user:1"), a_move(300))
    query = "SELECT counterparty, amount, balance_after, version FROM entries WHERE owner = $1"
    rows = await owner.fetch(query + " ORDER BY version", "user:1")
    assert [tuple(row) for row in rows] == [
        ("world", 1000, 1000, 1),
        ("merchant:default", -300, 700, 2),
    ]
    assert await owner.fetchval("SELECT sum(amount) FROM entries") == 0


async def test_a_refused_move_leaves_nothing_behind(db: Db, owner: asyncpg.Connection) -> None:
    with pytest.raises(InsufficientFunds):
        await post(db, a_move(1000, debit="world", credit="user:1"), a_move(1001))
    assert await accounts(owner) == {}
    assert await owner.fetchval("SELECT count(*) FROM postings") == 0


async def test_an_account_is_opened_once_by_many(db: Db, owner: asyncpg.Connection) -> None:
    deposits = (post(db, a_move(10, debit="world", credit="user:1")) for _ in range(20))
    await asyncio.gather(*deposits)
    assert await accounts(owner) == {"world": (200, 0, 20), "user:1": (0, 200, 20)}


async def test_moves_in_opposite_directions_do_not_deadlock(db: Db) -> None:
    await post(db, a_move(100_000, debit="world", credit="user:1"))
    await post(db, a_move(50_000))
    pairs = [("user:1", "merchant:default"), ("merchant:default", "user:1")] * 10
    await asyncio.gather(*(post(db, a_move(10, debit=d, credit=c)) for d, c in pairs))
    async with db.read() as tx:
        (user,) = await service.balances(tx, "user:1")
        (merchant,) = await service.balances(tx, "merchant:default")
    assert (user.balance, user.version) == (50_000, 22)
    assert (merchant.balance, merchant.version) == (50_000, 21)


async def test_payers_are_sorted_into_locked_busy_and_absent(db: Db) -> None:
    await post(db, a_move(10, debit="world", credit="user:1"))
    await post(db, a_move(10, debit="world", credit="user:2"))
    other, nobody = AccountId("user:2", "USD"), AccountId("user:3", "USD")
    async with db.begin() as holder:
        await service.lock_or_open(holder, [other])
        async with db.begin() as tx, asyncio.timeout(2):
            payers = await service.lock_payers(tx, [USER, other, nobody])
    assert [account.id for account in payers.locked] == [USER]
    assert payers.locked[0].balance == 10
    assert (payers.busy, payers.absent) == ({other}, {nobody})


async def test_a_lock_sees_what_the_holder_before_has_written(db: Db) -> None:
    await post(db, a_move(10, debit="world", credit="user:1"))

    async def locked_balance() -> int:
        async with db.begin() as tx:
            (account,) = await service.lock_or_open(tx, [USER])
            return account.balance

    async with db.begin() as holder:
        book = Book(await service.lock_or_open(holder, [USER, MERCHANT]))
        waiting = asyncio.create_task(locked_balance())
        await asyncio.sleep(0.1)
        book.post(a_move(4))
        await service.write(holder, book)
    assert await waiting == 6


async def test_totals_that_changed_since_they_were_read_are_not_overwritten(
    db: Db, owner: asyncpg.Connection
) -> None:
    await post(db, a_move(100, debit="world", credit="user:1"))
    async with db.read() as tx:
        stale = Book([*await service.balances(tx, "user:1"), *await service.balances(tx, "world")])
    await post(db, a_move(1, debit="world", credit="user:1"))
    before = await accounts(owner)

    async def write_stale() -> None:
        async with db.begin() as tx:
            stale.post(a_move(50, debit="user:1", credit="world"))
            await service.write(tx, stale)

    # Its version is taken too, so PostgreSQL's unique index would refuse it as well.
    with pytest.raises((AssertionError, asyncpg.UniqueViolationError)):
        await write_stale()
    assert await accounts(owner) == before
    assert await owner.fetchval("SELECT count(*) FROM postings") == 2


async def test_a_stale_credit_side_fails_the_transaction(db: Db, owner: asyncpg.Connection) -> None:
    await post(db, a_move(100, debit="world", credit="user:1"), a_move(1))
    async with db.read() as tx:
        old = await service.balances(tx, "merchant:default")
    await post(db, a_move(1))
    async with db.begin() as tx:
        fresh = await service.lock_or_open(tx, [USER])
        book = Book([*fresh, *old])
        book.post(a_move(5))
        with pytest.raises(AssertionError, match="totals"):
            await service.write(tx, book)
        await tx.driver.execute("ROLLBACK; BEGIN")
    assert (await accounts(owner))["merchant:default"] == (0, 2, 2)


async def test_an_owner_without_an_account_is_not_found(db: Db) -> None:
    await post(db, a_move(100, debit="world", credit="user:1"))
    assert [a.id for a in await service.accounts_of(db, "user:1")] == [USER]
    with pytest.raises(AccountNotFound):
        await service.accounts_of(db, "user:2")


async def test_a_lost_posting_is_told_from_one_that_landed(db: Db) -> None:
    async with db.begin() as tx:
        book = Book(await service.lock_or_open(tx, [WORLD, USER]))
        landed = book.post(a_move(10, debit="world", credit="user:1"))
        await service.write(tx, book)
    never = landed._replace(move=a_move(10, debit="world", credit="user:1"))
    assert await service.landed(db, landed)
    assert not await service.landed(db, never)
