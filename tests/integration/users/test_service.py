"""Users and their money from outside: deposited once for each key, told by statements."""

import asyncio
import itertools
from collections.abc import Mapping

import asyncpg
import pytest
from tests.builders import a_charge, a_deposit
from tests.integration.proxies import Cut, PostgresProxy

from picopay.charges import service as charges
from picopay.idempotency.errors import KeyReused
from picopay.infra.db import Db
from picopay.ledger import service as ledger
from picopay.ledger.errors import AccountLimit
from picopay.ledger.model import Entry
from picopay.ledger.rules import bounds_below
from picopay.users import service
from picopay.users.errors import UserNotFound


async def postings(owner: asyncpg.Connection) -> int:
    return await owner.fetchval("SELECT count(*) FROM postings")


async def test_a_user_is_created_once(db: Db) -> None:
    user, created = await service.create(db, 7)
    again, created_again = await service.create(db, 7)
    assert (created, created_again) == (True, False)
    assert again == user
    assert await service.show(db, 7) == (user, [])


async def test_many_creating_one_user_make_one(db: Db) -> None:
    made = await asyncio.gather(*(service.create(db, 7) for _ in range(10)))
    assert [created for _, created in made].count(True) == 1
    assert len({user for user, _ in made}) == 1


@pytest.mark.parametrize("user_id", [1, 2**63 - 1])
async def test_any_positive_64_bit_number_is_a_user(db: Db, user_id: int) -> None:
    await service.create(db, user_id)
    deposit = await service.deposit(db, a_deposit(500, user_id=user_id))
    assert (deposit.user_id, deposit.balance_after_minor) == (user_id, 500)


async def test_a_stranger_is_not_shown_and_gets_no_deposit(
    db: Db, owner: asyncpg.Connection
) -> None:
    with pytest.raises(UserNotFound):
        await service.show(db, 7)
    with pytest.raises(UserNotFound):
        await service.deposit(db, a_deposit(user_id=7, key="a"))
    assert await postings(owner) == 0
    assert await owner.fetchval("SELECT count(*) FROM accounts") == 0

    await service.create(db, 7)
    retried = await service.deposit(db, a_deposit(user_id=7, key="a"))
    assert not retried.replayed


async def test_a_deposit_comes_from_the_world(db: Db) -> None:
    await service.create(db, 1)
    deposit = await service.deposit(db, a_deposit(100_000))
    assert (deposit.money.minor, deposit.balance_after_minor) == (100_000, 100_000)
    (world,) = await ledger.accounts_of(db, "world")
    assert world.balance == -100_000


async def test_a_repeated_key_answers_the_first_deposit(db: Db, owner: asyncpg.Connection) -> None:
    await service.create(db, 1)
    first = await service.deposit(db, a_deposit(500, key="a"))
    await service.deposit(db, a_deposit(1))
    again = await service.deposit(db, a_deposit(500, key="a"))
    assert again == first._replace(replayed=True)
    assert again.balance_after_minor == 500
    assert await postings(owner) == 2


@pytest.mark.parametrize(
    ("user_id", "minor", "currency", "fields"),
    [
        (2, 500, "USD", ["user_id"]),
        (1, 501, "USD", ["amount"]),
        (1, 500, "JPY", ["currency"]),
        (9, 1, "JPY", ["amount", "currency", "user_id"]),
    ],
)
async def test_a_reused_key_names_what_differs(
    db: Db, user_id: int, minor: int, currency: str, fields: list[str]
) -> None:
    for known in (1, 2):
        await service.create(db, known)
    await service.deposit(db, a_deposit(500, key="a"))
    with pytest.raises(KeyReused) as refused:
        await service.deposit(db, a_deposit(minor, user_id=user_id, currency=currency, key="a"))
    assert refused.value.fields == {"mismatched_fields": fields}
    assert (await service.show(db, 1))[1][0].balance == 500


async def test_a_deposit_and_a_charge_may_share_a_key(db: Db) -> None:
    await service.create(db, 1)
    await service.deposit(db, a_deposit(key="a"))
    (outcome,) = await charges.commit_batch(db, [a_charge(key="a")])
    assert type(outcome).__name__ == "Approved"


async def test_concurrent_deposits_of_one_key_are_one_posting(
    db: Db, owner: asyncpg.Connection
) -> None:
    await service.create(db, 1)
    attempts = (service.deposit(db, a_deposit(500, key="a")) for _ in range(20))
    made = await asyncio.gather(*attempts)
    assert [deposit.replayed for deposit in made].count(False) == 1
    assert len({(deposit.id, deposit.balance_after_minor) for deposit in made}) == 1
    assert await postings(owner) == 1


async def test_deposits_beyond_64_bits_are_refused(db: Db, owner: asyncpg.Connection) -> None:
    await service.create(db, 1)
    await service.deposit(db, a_deposit(1))
    full = 2**63 - 100
    await owner.execute("UPDATE accounts SET credits = $1 WHERE owner = 'user:1'", full)
    with pytest.raises(AccountLimit):
        await service.deposit(db, a_deposit(100, key="a"))
    assert await postings(owner) == 1
    assert not (await service.deposit(db, a_deposit(99, key="a"))).replayed


@pytest.mark.parametrize(
    ("cut", "key"), list(itertools.product((Cut.BEFORE_COMMIT, Cut.AFTER_COMMIT), (None, "a")))
)
async def test_a_lost_commit_ends_in_one_deposit(
    lossy_db: Db, proxy: PostgresProxy, owner: asyncpg.Connection, cut: Cut, key: str | None
) -> None:
    await service.create(lossy_db, 1)
    proxy.cut = cut
    deposit = await service.deposit(lossy_db, a_deposit(500, key=key))
    assert proxy.commits_lost == 1
    assert deposit.balance_after_minor == 500
    assert await postings(owner) == 1


async def some_history(db: Db) -> None:
    """Three currencies, eleven entries, in one order of time."""
    await service.create(db, 1)
    for currency in ("USD", "JPY", "KWD"):
        await service.deposit(db, a_deposit(1000, currency=currency))
    for minor in (10, 20, 30, 40):
        for currency in ("USD", "JPY"):
            await charges.commit_batch(db, [a_charge(minor, currency=currency)])


async def statement(db: Db, currency: str | None = None) -> list[Entry]:
    entries, _ = await ledger.statement(db, "user:1", currency, {}, 20)
    return entries


async def pages(db: Db, limit: int, *, write_between: bool = False) -> list[Entry]:
    shown: list[Entry] = []
    bounds: Mapping[str, int] = {}
    while True:
        found, bounds = await ledger.statement(db, "user:1", None, bounds, limit)
        shown += found[:limit]
        bounds = bounds_below(found[:limit], bounds)
        if len(found) <= limit:
            return shown
        if write_between:
            await charges.commit_batch(db, [a_charge(1), a_charge(1, currency="JPY")])
            await service.deposit(db, a_deposit(1, currency="EUR"))


async def test_a_statement_shows_running_balances(db: Db) -> None:
    await some_history(db)
    yen = await statement(db, "JPY")
    assert [(e.minor, e.balance_after, e.version) for e in yen] == [
        (-40, 900, 5),
        (-30, 940, 4),
        (-20, 970, 3),
        (-10, 990, 2),
        (1000, 1000, 1),
    ]
    assert {e.counterparty for e in yen} == {"merchant:default", "world"}


async def test_a_statement_of_all_currencies_is_newest_first(db: Db) -> None:
    await some_history(db)
    entries = await statement(db)
    assert len(entries) == 11
    assert [e.created_at for e in entries] == sorted((e.created_at for e in entries), reverse=True)


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 11])
async def test_pages_together_are_the_whole_statement(db: Db, limit: int) -> None:
    await some_history(db)
    assert await pages(db, limit) == await statement(db)


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_what_is_written_meanwhile_does_not_move_the_pages(db: Db, limit: int) -> None:
    await some_history(db)
    before = await statement(db)
    assert await pages(db, limit, write_between=True) == before


async def test_another_currency_has_no_entries(db: Db) -> None:
    await some_history(db)
    assert await statement(db, "EUR") == []
