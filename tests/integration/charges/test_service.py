"""Charging on a real database: once for each key, whatever happens in between."""

import asyncio

import asyncpg
import pytest
from tests.builders import a_charge, a_deposit
from tests.conftest import Stores
from tests.integration.proxies import Cut, PostgresProxy
from tests.races.truth import locked

from picopay.charges import service
from picopay.charges.errors import ChargeNotFound
from picopay.charges.model import Approved, Busy, ChargeCommand, Declined, Outcome, Replayed
from picopay.charges.service import MerchantLocked
from picopay.charges.store import Filter
from picopay.infra import sessions
from picopay.infra.db import Db
from picopay.users import service as users


@pytest.fixture(autouse=True)
async def _funded(db: Db) -> None:
    """Users 1 and 2 with 1000.00 USD each, user 3 with nothing."""
    for user_id in (1, 2, 3):
        await users.create(db, user_id)
    for user_id in (1, 2):
        await users.deposit(db, a_deposit(100_000, user_id=user_id))


async def balance(db: Db, user_id: int = 1, currency: str = "USD") -> int:
    _, accounts = await users.show(db, user_id)
    return sum(account.balance for account in accounts if account.id.currency == currency)


async def count(owner: asyncpg.Connection, what: str) -> int:
    return await owner.fetchval(f"SELECT count(*) FROM {what}")  # noqa: S608 - a test's own


def codes(outcomes: list[Outcome]) -> list[str]:
    return [
        outcome.reason.code if isinstance(outcome, Declined) else type(outcome).__name__.lower()
        for outcome in outcomes
    ]


async def patiently(db: Db, batch: list[ChargeCommand]) -> list[Outcome]:
    """Decide the batch, its busy payers' charges again until they are decided, too."""
    outcomes = await service.commit_batch(db, batch)
    while busy := [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Busy)]:
        await asyncio.sleep(0.002)
        again = await service.commit_batch(db, [batch[n] for n in busy])
        for n, outcome in zip(busy, again, strict=True):
            outcomes[n] = outcome
    return outcomes


async def test_a_batch_is_written_and_answered_in_order(db: Db, owner: asyncpg.Connection) -> None:
    batch = [
        a_charge(10_000, key="a"),
        a_charge(999_999),
        a_charge(500, user_id=2),
        a_charge(user_id=3),
        a_charge(user_id=9),
        a_charge(10_000, key="a"),
        a_charge(20_000, key="a"),
    ]
    outcomes = await service.commit_batch(db, batch)
    assert codes(outcomes) == [
        "approved",
        "insufficient-balance",
        "approved",
        "insufficient-balance",
        "user-not-found",
        "replayed",
        "idempotency-key-reused",
    ]
    assert (await balance(db), await balance(db, 2)) == (90_000, 99_500)
    assert await count(owner, "charges") == 2
    assert await count(owner, "postings WHERE kind = 'charge'") == 2
    assert await count(owner, "idempotency_keys WHERE operation = 'charge'") == 1


async def test_the_merchant_is_credited_under_the_charges_own_id(
    db: Db, owner: asyncpg.Connection
) -> None:
    command = a_charge(2500)
    await service.commit_batch(db, [command])
    query = "SELECT * FROM postings WHERE id = $1"
    posting = await owner.fetchrow(query, command.id)
    assert posting is not None
    assert (posting["debit_owner"], posting["credit_owner"]) == ("user:1", "merchant:default")
    assert (posting["amount"], posting["debit_balance"]) == (2500, 97_500)
    listed = await service.show(db, "default", command.id)
    assert listed.charge.balance_after_minor == 97_500


async def test_a_key_replays_its_charge_in_later_batches(db: Db) -> None:
    (first,) = await service.commit_batch(db, [a_charge(key="a")])
    await service.commit_batch(db, [a_charge(50_000)])
    (again,) = await service.commit_batch(db, [a_charge(key="a")])
    assert isinstance(first, Approved)
    assert again == Replayed(first.charge)
    assert await balance(db) == 49_000


async def test_a_key_used_for_something_else_is_refused_and_charges_nothing(db: Db) -> None:
    await service.commit_batch(db, [a_charge(key="a")])
    others = [a_charge(2000, key="a"), a_charge(user_id=2, currency="JPY", key="a")]
    outcomes = await service.commit_batch(db, others)
    named = [o.reason.fields["mismatched_fields"] for o in outcomes if isinstance(o, Declined)]
    assert named == [["amount"], ["currency", "user_id"]]
    assert (await balance(db), await balance(db, 2)) == (99_000, 100_000)


async def test_a_key_belongs_to_its_merchant(db: Db) -> None:
    batch = [a_charge(key="a"), a_charge(key="a", merchant_id="other")]
    assert codes(await service.commit_batch(db, batch)) == ["approved", "approved"]
    assert await balance(db) == 98_000


@pytest.mark.parametrize("user_id", [1, 3, 9])
async def test_a_declined_charge_gives_its_key_back(
    db: Db, owner: asyncpg.Connection, user_id: int
) -> None:
    declined = await service.commit_batch(db, [a_charge(150_000, user_id=user_id, key="a")])
    assert isinstance(declined[0], Declined)
    assert await count(owner, "idempotency_keys WHERE operation = 'charge'") == 0
    assert await count(owner, "charges") == 0

    await users.create(db, user_id)
    await users.deposit(db, a_deposit(150_000, user_id=user_id))
    retried = await service.commit_batch(db, [a_charge(150_000, user_id=user_id, key="a")])
    assert codes(retried) == ["approved"]


async def test_twins_in_concurrent_batches_are_one_charge(db: Db) -> None:
    attempts = (patiently(db, [a_charge(key="a")]) for _ in range(10))
    outcomes = [outcome for (outcome,) in await asyncio.gather(*attempts)]
    assert sorted(codes(outcomes)) == ["approved", *["replayed"] * 9]
    assert len({o.charge for o in outcomes if isinstance(o, (Approved, Replayed))}) == 1
    assert await balance(db) == 99_000


async def test_concurrent_batches_never_overdraw(db: Db) -> None:
    attempts = (patiently(db, [a_charge(3000) for _ in range(5)]) for _ in range(10))
    told = [code for outcomes in await asyncio.gather(*attempts) for code in codes(outcomes)]
    assert told.count("approved") == 33
    assert told.count("insufficient-balance") == 17
    assert await balance(db) == 1000


async def test_batches_that_claim_keys_in_opposite_orders_do_not_deadlock(db: Db) -> None:
    keys = [str(number) for number in range(40)]
    one = [a_charge(100, key=key) for key in keys]
    other = [a_charge(100, key=key) for key in reversed(keys)]
    attempts = (patiently(db, batch) for batch in (one, other))
    told = [code for outcomes in await asyncio.gather(*attempts) for code in codes(outcomes)]
    assert (told.count("approved"), told.count("replayed")) == (40, 40)
    assert await balance(db) == 96_000


async def test_a_payer_locked_elsewhere_is_busy_and_delays_nobody(
    db: Db, clean: Stores, owner: asyncpg.Connection
) -> None:
    batch = [
        a_charge(key="busy"),
        a_charge(user_id=2, key="fine"),
        a_charge(),
        a_charge(currency="JPY"),
    ]
    async with locked(clean.database_url, "user:1"), asyncio.timeout(2):
        outcomes = await service.commit_batch(db, batch)
    assert codes(outcomes) == ["busy", "approved", "busy", "insufficient-balance"]
    assert await balance(db) == 100_000
    assert await count(owner, "idempotency_keys WHERE key = 'busy'") == 0
    assert isinstance(outcomes[0], Busy)


async def test_a_merchant_locked_for_long_fails_the_batch_without_a_trace(
    db: Db, clean: Stores, owner: asyncpg.Connection
) -> None:
    await service.commit_batch(db, [a_charge()])
    lanes = Db(clean.database_url, session=sessions.RESERVED)
    async with locked(clean.database_url, "merchant:default"):
        with pytest.raises(MerchantLocked):
            await service.commit_batch(lanes, [a_charge(key="a")])
    await lanes.close()
    assert await balance(db) == 99_000
    assert await count(owner, "idempotency_keys WHERE key = 'a'") == 0


@pytest.mark.parametrize("cut", [Cut.BEFORE_COMMIT, Cut.AFTER_COMMIT])
async def test_a_lost_commit_is_looked_up_and_ends_in_one_charge(
    db: Db, lossy_db: Db, proxy: PostgresProxy, owner: asyncpg.Connection, cut: Cut
) -> None:
    batch = [a_charge(key="a"), a_charge(user_id=2), a_charge(999_999, key="poor")]
    proxy.cut = cut
    outcomes = await service.commit_batch(lossy_db, batch)
    assert proxy.commits_lost == 1
    assert codes(outcomes) == ["approved", "approved", "insufficient-balance"]
    assert await count(owner, "charges") == 2
    assert (await balance(db), await balance(db, 2)) == (99_000, 99_000)
    (again,) = await service.commit_batch(db, [a_charge(key="a")])
    assert isinstance(outcomes[0], Approved)
    assert again == Replayed(outcomes[0].charge)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOST_DATABASE_SECONDS", 0.5)
    monkeypatch.setattr(Db.retrying, "__defaults__", (0.5,))


@pytest.mark.parametrize("case", [(Cut.BEFORE_COMMIT, 0), (Cut.AFTER_COMMIT, 1)])
async def test_a_database_that_stays_lost_during_commit_leaves_the_outcome_unknown(
    lossy_db: Db,
    proxy: PostgresProxy,
    owner: asyncpg.Connection,
    impatient: None,
    case: tuple[Cut, int],
) -> None:
    cut, charged = case
    command, twin, poor = a_charge(key="a"), a_charge(key="a"), a_charge(999_999)
    await service.commit_batch(lossy_db, [a_charge(key="before")])
    proxy.cut, proxy.stay_lost = cut, True
    told = await service.commit_batch(lossy_db, [command, twin, poor])
    # The twin would replay a charge that may not be there, and the refusal counts it as paid.
    assert codes(told) == ["outcome-unknown", "outcome-unknown", "database-unavailable"]
    unknown = told[0]
    assert isinstance(unknown, Declined)
    assert unknown.reason.fields["charge_id"] == command.id

    proxy.come_back()
    assert await count(owner, "charges") == 1 + charged
    retried = await service.commit_batch(lossy_db, [a_charge(key="a")])
    assert codes(retried) == ["replayed" if charged else "approved"]
    assert await count(owner, "charges") == 2


async def test_first_charges_of_a_merchant_open_one_account_however_many_come_at_once(
    db: Db, owner: asyncpg.Connection
) -> None:
    batches = [[a_charge(user_id=user), a_charge(user_id=user)] for user in (1, 2)]
    told = await asyncio.gather(*(service.commit_batch(db, batch) for batch in batches))
    assert [codes(outcomes) for outcomes in told] == [["approved", "approved"]] * 2
    rows = await owner.fetch("SELECT credits, version FROM accounts WHERE owner LIKE 'merchant:%'")
    assert [tuple(row) for row in rows] == [(4000, 4)]


async def test_a_batch_in_which_nothing_is_charged_opens_no_account(
    db: Db, owner: asyncpg.Connection
) -> None:
    told = await service.commit_batch(db, [a_charge(999_999)])
    assert codes(told) == ["insufficient-balance"]
    assert await count(owner, "accounts WHERE owner LIKE 'merchant:%'") == 0


async def test_the_account_is_opened_although_that_commit_was_lost(
    lossy_db: Db, proxy: PostgresProxy, owner: asyncpg.Connection
) -> None:
    proxy.cut = Cut.AFTER_COMMIT
    told = await service.commit_batch(lossy_db, [a_charge()])
    assert (proxy.commits_lost, codes(told)) == (1, ["approved"])
    assert await count(owner, "charges") == 1


async def test_a_session_killed_while_it_waits_is_run_again(db: Db, clean: Stores) -> None:
    await service.commit_batch(db, [a_charge()])
    async with locked(clean.database_url, "merchant:default") as other:
        waiting = asyncio.create_task(service.commit_batch(db, [a_charge()]))
        await asyncio.sleep(0.2)
        blocked = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                      WHERE wait_event_type = 'Lock' AND datname = current_database()"""
        assert await other.fetch(blocked) == [(True,)]
    assert codes(await waiting) == ["approved"]
    assert await balance(db) == 98_000


async def test_charges_are_listed_newest_first_to_their_merchant_alone(db: Db) -> None:
    batch = [a_charge(100), a_charge(200, user_id=2), a_charge(300, merchant_id="other")]
    await service.commit_batch(db, batch)
    page = await service.page(db, "default", Filter(), 20)
    assert [listed.charge.id for listed in page] == [batch[1].id, batch[0].id]
    below = Filter(after=batch[1].id)
    assert [c.charge.id for c in await service.page(db, "default", below, 20)] == [batch[0].id]
    (only,) = await service.page(db, "default", Filter(user_id=2), 20)
    assert only.charge.money.minor == 200
    with pytest.raises(ChargeNotFound):
        await service.show(db, "default", batch[2].id)
