"""Refunds on a real database: once for each key, never too much, whatever happens in between."""

import asyncio
from collections import Counter
from collections.abc import Awaitable

import asyncpg
import pytest
from tests.builders import a_charge, a_deposit, a_refund
from tests.conftest import Stores
from tests.integration.proxies import Cut, Hole, PostgresProxy
from tests.races.truth import assert_ledger_clean, connected, locked, wait_for_waiters

from picopay.charges import refunds, service
from picopay.charges.errors import MerchantBalanceInsufficient, RefundExceedsCharge
from picopay.charges.model import Approved, Busy, Charge, Refund
from picopay.idempotency.errors import KeyReused
from picopay.infra import db as infra
from picopay.infra import sessions
from picopay.infra.db import DatabaseUnavailable, Db, OutcomeUnknown
from picopay.kernel.errors import Overloaded, Refused
from picopay.users import service as users

IDLE_SECONDS = 4  # of a transaction that nobody ends; ten outside of tests


@pytest.fixture(autouse=True)
async def _funded(db: Db) -> None:
    """Users 1 and 2 with 1000.00 USD each."""
    for user_id in (1, 2):
        await users.create(db, user_id)
        await users.deposit(db, a_deposit(100_000, user_id=user_id))


async def charged(
    db: Db, minor: int = 10_000, *, user_id: int = 1, merchant_id: str = "default"
) -> Charge:
    command = a_charge(minor, user_id=user_id, merchant_id=merchant_id)
    (outcome,) = await service.commit_batch(db, [command])
    assert isinstance(outcome, Approved), outcome
    return outcome.charge


@pytest.fixture
async def charge(db: Db) -> Charge:
    """100.00 USD of user 1."""
    return await charged(db)


async def balance(db: Db, user_id: int = 1) -> int:
    _, accounts = await users.show(db, user_id)
    return accounts[0].balance


async def refunded(db: Db) -> tuple[int, int, int, int]:
    """What charges count, and how many rows, postings and keys of refunds there are."""
    query = (
        "SELECT (SELECT coalesce(sum(refunded), 0)::bigint FROM charges),"
        " (SELECT count(*) FROM charge_refunds),"
        " (SELECT count(*) FROM postings WHERE kind = 'refund'),"
        " (SELECT count(*) FROM idempotency_keys WHERE operation = 'refund')"
    )
    row = await db.query(lambda tx: tx.driver.fetchrow(query))
    assert row is not None
    return row[0], row[1], row[2], row[3]


async def told(refunding: Awaitable[tuple[Refund, bool]]) -> str:
    try:
        _, replayed = await refunding
    except Refused as refused:
        return refused.code
    return "replayed" if replayed else "succeeded"


async def test_what_is_answered_is_what_is_kept(db: Db, charge: Charge) -> None:
    command = a_refund(charge, 300, reason="late")
    made, replayed = await refunds.refund(db, command)
    assert not replayed
    assert made.id == command.id
    assert await refunds.page(db, charge, None, 20) == [made]
    assert await refunds.refund(db, command._replace(id=a_refund(charge).id)) == (made, True)
    assert (await service.show(db, "default", charge.id)).refunded_minor == 300
    await assert_ledger_clean(db)


async def test_a_key_belongs_to_its_merchant(db: Db, charge: Charge) -> None:
    other = await charged(db, user_id=2, merchant_id="other")
    attempts = [a_refund(charge, key="a"), a_refund(other, key="a")]
    assert [await told(refunds.refund(db, command)) for command in attempts] == ["succeeded"] * 2


@pytest.mark.parametrize("merchants", [("default", "default"), ("default", "other")])
async def test_concurrent_refunds_of_one_charge_never_exceed_it(
    db: Db, merchants: tuple[str, str]
) -> None:
    made = [await charged(db, merchant_id=merchant) for merchant in merchants]
    commands = [a_refund(charge, minor) for charge in made for minor in range(100, 1500, 100)]
    outcomes = Counter(
        await asyncio.gather(*(told(refunds.refund(db, command)) for command in commands))
    )
    assert set(outcomes) == {"succeeded", "refund-exceeds-charge"}
    total, rows, postings, keys = await refunded(db)
    assert rows == postings == keys == outcomes["succeeded"]
    assert total <= 20_000
    assert await balance(db) == 80_000 + total
    await assert_ledger_clean(db)


async def test_concurrent_requests_for_all_that_is_left_are_one_refund(
    db: Db, charge: Charge
) -> None:
    commands = [a_refund(charge) for _ in range(20)]
    outcomes = await asyncio.gather(*(told(refunds.refund(db, command)) for command in commands))
    assert Counter(outcomes) == {"succeeded": 1, "refund-exceeds-charge": 19}
    assert await refunded(db) == (10_000, 1, 1, 1)


async def test_concurrent_repeats_of_one_key_are_one_refund(db: Db, charge: Charge) -> None:
    commands = [a_refund(charge, 700, key="a") for _ in range(20)]
    made = await asyncio.gather(*(refunds.refund(db, command) for command in commands))
    assert [replayed for _, replayed in made].count(False) == 1
    assert len({refund for refund, _ in made}) == 1
    assert await refunded(db) == (700, 1, 1, 1)


async def test_one_key_for_two_charges_at_once_refunds_one_of_them(db: Db, charge: Charge) -> None:
    other = await charged(db, user_id=2)
    commands = [a_refund(c, 700, key="a") for c in (charge, other)]
    attempts = (refunds.refund(db, command) for command in commands)
    one, two = await asyncio.gather(*attempts, return_exceptions=True)
    (lost,) = (outcome for outcome in (one, two) if isinstance(outcome, BaseException))
    assert isinstance(lost, KeyReused)
    assert lost.fields["mismatched_fields"] == ["charge_id"]
    assert await refunded(db) == (700, 1, 1, 1)


async def test_refunds_and_charges_of_one_user_at_once_lose_nothing(db: Db, charge: Charge) -> None:
    async def charging() -> int:
        done = 0
        while done < 30:
            (outcome,) = await service.commit_batch(db, [a_charge(1000)])
            assert isinstance(outcome, (Approved, Busy)), outcome
            done += isinstance(outcome, Approved)
            await asyncio.sleep(0.002)
        return done

    refunding = (told(refunds.refund(db, a_refund(charge, 100))) for _ in range(30))
    made, *outcomes = await asyncio.gather(charging(), *refunding)
    assert set(outcomes) == {"succeeded"}
    assert made == 30
    assert await balance(db) == 90_000 - 30_000 + 3000
    assert await refunded(db) == (3000, 30, 30, 30)
    await assert_ledger_clean(db)


async def test_refunds_of_many_users_and_charges_at_once_do_not_deadlock(
    db: Db,
) -> None:
    made = [await charged(db, user_id=1 + n % 2, merchant_id=f"m{n % 3}") for n in range(6)]
    commands = [a_refund(charge, 100) for _ in range(8) for charge in made]
    outcomes = await asyncio.gather(*(told(refunds.refund(db, command)) for command in commands))
    assert set(outcomes) == {"succeeded"}
    assert await refunded(db) == (4800, 48, 48, 48)
    await assert_ledger_clean(db)


async def test_a_refused_refund_leaves_nothing_and_its_key_free(db: Db, charge: Charge) -> None:
    with pytest.raises(RefundExceedsCharge):
        await refunds.refund(db, a_refund(charge, 10_001, key="a"))
    assert await refunded(db) == (0, 0, 0, 0)
    assert await told(refunds.refund(db, a_refund(charge, 10_000, key="a"))) == "succeeded"


async def test_a_merchant_who_has_spent_it_is_refused_and_nothing_is_half_done(
    db: Db, owner: asyncpg.Connection, charge: Charge
) -> None:
    await owner.execute("UPDATE accounts SET debits = 9901 WHERE owner = 'merchant:default'")
    with pytest.raises(MerchantBalanceInsufficient):
        await refunds.refund(db, a_refund(charge, 100, key="a"))
    assert await refunded(db) == (0, 0, 0, 0)
    assert await balance(db) == 90_000
    assert await told(refunds.refund(db, a_refund(charge, 99, key="a"))) == "succeeded"


@pytest.mark.parametrize("cut", [Cut.BEFORE_COMMIT, Cut.AFTER_COMMIT])
async def test_a_lost_commit_is_looked_up_and_ends_in_one_refund(
    db: Db,
    lossy_db: Db,
    proxy: PostgresProxy,
    charge: Charge,
    cut: Cut,
) -> None:
    proxy.cut = cut
    made, replayed = await refunds.refund(lossy_db, a_refund(charge, 700, key="a"))
    assert proxy.commits_lost == 1
    assert not replayed
    assert await refunded(db) == (700, 1, 1, 1)
    assert await refunds.refund(db, a_refund(charge, 700, key="a")) == (made, True)


@pytest.fixture
def soon_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is away is waited for a tenth of what it is outside of tests."""
    monkeypatch.setattr(Db.retrying, "__defaults__", (infra.LOST_DATABASE_SECONDS / 10,))


@pytest.mark.usefixtures("soon_lost")
@pytest.mark.parametrize("case", [(Cut.BEFORE_COMMIT, 0), (Cut.AFTER_COMMIT, 1)])
async def test_a_database_that_stays_lost_during_commit_leaves_the_outcome_unknown(
    db: Db,
    lossy_db: Db,
    proxy: PostgresProxy,
    charge: Charge,
    case: tuple[Cut, int],
) -> None:
    cut, made = case
    command = a_refund(charge, 700, key="a")
    proxy.cut, proxy.stay_lost = cut, True
    with pytest.raises(OutcomeUnknown) as unknown:
        await refunds.refund(lossy_db, command)
    assert unknown.value.fields == {"refund_id": command.id}
    proxy.come_back()
    assert (await refunded(db))[1] == made
    again = await told(refunds.refund(lossy_db, a_refund(charge, 700, key="a")))
    assert again == ("replayed" if made else "succeeded")
    assert await refunded(db) == (700, 1, 1, 1)


@pytest.mark.usefixtures("soon_lost")
async def test_a_database_lost_before_commit_is_unavailable_and_nothing_is_made(
    db: Db, lossy_db: Db, proxy: PostgresProxy, charge: Charge
) -> None:
    proxy.cut, proxy.stay_lost = Cut.BEFORE_COMMIT, True
    with pytest.raises(OutcomeUnknown):
        await refunds.refund(lossy_db, a_refund(charge))
    with pytest.raises(DatabaseUnavailable):
        await refunds.refund(lossy_db, a_refund(charge))
    assert await refunded(db) == (0, 0, 0, 0)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A COMMIT without an answer is given up soon, and by PostgreSQL a little later."""
    monkeypatch.setattr(infra, "BOUNDARY_TIMEOUT_SECONDS", 1)
    idle = "idle_in_transaction_session_timeout"
    monkeypatch.setitem(sessions.REQUESTS.settings, idle, f"{IDLE_SECONDS}s")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("heard", [False, True])
async def test_a_connection_that_falls_silent_at_commit_is_settled_all_the_same(
    db: Db,
    lossy_db: Db,
    proxy: PostgresProxy,
    charge: Charge,
    heard: bool,  # noqa: FBT001 - a case
) -> None:
    """PostgreSQL keeps the transaction's locks, its key among them, until it finds it idle."""
    proxy.hole = Hole(b"COMMIT\x00", heard=heard)
    command = a_refund(charge, 700, key="a")
    made, replayed = await refunds.refund(lossy_db, command)
    assert proxy.swallowed == 1
    assert (made.id, replayed) == (command.id, False)
    assert await refunded(db) == (700, 1, 1, 1)


@pytest.mark.usefixtures("hasty")
async def test_a_commit_in_doubt_whose_key_stays_locked_is_not_told_as_if_nothing_was_done(
    db: Db,
    lossy_db: Db,
    proxy: PostgresProxy,
    charge: Charge,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refunds, "LOCKED_SECONDS", 0.5)
    proxy.hole = Hole(b"COMMIT\x00", heard=False)
    with pytest.raises(OutcomeUnknown):
        await refunds.refund(lossy_db, a_refund(charge, 700, key="a"))
    monkeypatch.undo()
    assert await told(refunds.refund(lossy_db, a_refund(charge, 700, key="a"))) == "succeeded"
    assert await refunded(db) == (700, 1, 1, 1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refunds, "LOCKED_SECONDS", 1.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("account", ["merchant:default", "user:1"])
async def test_an_account_that_stays_locked_is_waited_for_with_a_bound_then_overloaded(
    db: Db,
    clean: Stores,
    charge: Charge,
    account: str,
) -> None:
    async with locked(clean.database_url, account), asyncio.timeout(3):
        with pytest.raises(Overloaded):
            await refunds.refund(db, a_refund(charge, key="a"))
    assert await refunded(db) == (0, 0, 0, 0)
    assert await told(refunds.refund(db, a_refund(charge, key="a"))) == "succeeded"


@pytest.mark.usefixtures("impatient")
async def test_a_charge_row_that_stays_locked_is_waited_for_with_a_bound(
    db: Db, clean: Stores, charge: Charge
) -> None:
    async with connected(clean.database_url) as other, asyncio.timeout(3):
        await other.execute("BEGIN; SELECT FROM charges FOR UPDATE")
        with pytest.raises(Overloaded):
            await refunds.refund(db, a_refund(charge))


async def test_the_merchant_freed_in_time_lets_the_refund_be_made(
    db: Db, clean: Stores, charge: Charge
) -> None:
    async with locked(clean.database_url, "merchant:default"):
        refunding = asyncio.create_task(told(refunds.refund(db, a_refund(charge))))
        await asyncio.sleep(1)
        assert not refunding.done()
    assert await refunding == "succeeded"


async def test_while_the_merchant_is_locked_the_payer_goes_on_at_other_merchants(
    db: Db, clean: Stores, charge: Charge
) -> None:
    """Whoever waits for the merchant lets go of the payer and of the charge in between."""
    async with locked(clean.database_url, "merchant:default"):
        refunding = asyncio.create_task(told(refunds.refund(db, a_refund(charge))))
        await wait_for_waiters(clean.database_url, 1)
        async with asyncio.timeout(1):
            while True:
                commands = [a_charge(100, merchant_id="other")]
                (outcome,) = await service.commit_batch(db, commands)
                if isinstance(outcome, Approved):
                    break
                await asyncio.sleep(0.002)
        assert not refunding.done()
    assert await refunding == "succeeded"


async def test_who_waits_for_a_merchant_a_second_time_does_not_hold_the_payer(
    db: Db, clean: Stores, charge: Charge
) -> None:
    async with locked(clean.database_url, "merchant:default"):
        refunding = asyncio.create_task(told(refunds.refund(db, a_refund(charge))))
        await asyncio.sleep((refunds.LOCK_TIMEOUT_MS / 1000 + refunds.PAUSE_SECONDS) * 1.1)
        for _ in range(20):
            commands = [a_charge(100, merchant_id="other")]
            (outcome,) = await service.commit_batch(db, commands)
            assert isinstance(outcome, Approved)
            await asyncio.sleep(0.03)
        assert not refunding.done()
    assert await refunding == "succeeded"


async def test_a_session_killed_while_it_waits_is_run_again(
    db: Db, clean: Stores, owner: asyncpg.Connection, charge: Charge
) -> None:
    async with locked(clean.database_url, "merchant:default"):
        waiting = asyncio.create_task(told(refunds.refund(db, a_refund(charge))))
        await wait_for_waiters(clean.database_url, 1)
        kill = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND datname = current_database()"""
        assert await owner.fetch(kill) == [(True,)]
    assert await waiting == "succeeded"
    assert await refunded(db) == (10_000, 1, 1, 1)
