"""The lanes on a real database: who waits for a locked account, and who does not."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from tests.builders import a_charge, a_deposit
from tests.conftest import Stores
from tests.races.truth import connected, locked

from picopay.charges.batcher import Batcher
from picopay.charges.lanes import HELD_KEY_SECONDS
from picopay.charges.model import Approved, ChargeCommand, Decision, Declined, Replayed
from picopay.charges.waiting import LOCKED_SECONDS
from picopay.idempotency.cache import ReplayCache
from picopay.infra import metrics, sessions
from picopay.infra.db import Db, OutcomeUnknown
from picopay.users import service as users

QUICK = 2.0  # seconds; a lane that waits, waits for as long as the lock is held


@pytest.fixture
async def batcher(clean: Stores) -> AsyncIterator[Batcher]:
    """Without Redis; three users of 1000.00 USD, and a merchant who has an account."""
    db = Db(clean.database_url, session=sessions.RESERVED)
    for user_id in (1, 2, 3):
        await users.create(db, user_id)
        await users.deposit(db, a_deposit(user_id=user_id))

    async def identify() -> str:
        return "db"

    batcher = Batcher(db, ReplayCache(None, identify, b"", ttl_seconds=1), queue_max=1000)
    assert isinstance(await charge(batcher, a_charge(user_id=3)), Approved)
    yield batcher
    await batcher.close()
    await db.close()


async def charge(batcher: Batcher, command: ChargeCommand) -> Decision:
    return await batcher.charge(command, lambda: False)


async def depth() -> float:
    """What an operator sees: charges that wait for a batch."""
    await asyncio.sleep(0)  # it is told once a turn
    (family,) = metrics.queue_depth.collect()
    return family.samples[0].value


async def test_a_replay_does_not_wait_for_the_payer_and_a_new_charge_does(
    batcher: Batcher, clean: Stores
) -> None:
    made = await charge(batcher, a_charge(key="a"))
    assert isinstance(made, Approved)
    async with locked(clean.database_url, "user:1"):
        new = asyncio.create_task(charge(batcher, a_charge(key="b")))
        await asyncio.sleep(0.3)
        async with asyncio.timeout(QUICK):
            assert isinstance(await charge(batcher, a_charge(user_id=2)), Approved)
            again = [await charge(batcher, a_charge(key="a")) for _ in range(3)]
            assert isinstance(await charge(batcher, a_charge(999, key="a")), Declined)
        assert await depth() == 1
        behind = asyncio.create_task(charge(batcher, a_charge()))
        await asyncio.sleep(0.3)
        assert await depth() == 2
        assert again == [Replayed(made.charge)] * 3
        assert not new.done()
    assert [type(await made) for made in (new, behind)] == [Approved, Approved]
    assert await depth() == 0


async def test_a_cancelled_statement_is_told_to_be_tried_again(
    batcher: Batcher, clean: Stores, owner: asyncpg.Connection
) -> None:
    """A statement that takes too long is cancelled likewise: nobody's charge is at fault."""
    blocked = """SELECT pg_cancel_backend(pid) FROM pg_stat_activity
                  WHERE wait_event_type = 'Lock' AND datname = current_database()"""
    async with locked(clean.database_url, "merchant:default"), asyncio.timeout(QUICK):
        waiting = asyncio.create_task(charge(batcher, a_charge(key="a")))
        while not await owner.fetch(blocked):
            pass
        told = await waiting
    assert isinstance(told, Declined)
    assert told.reason.code == "overloaded"
    assert isinstance(await charge(batcher, a_charge(key="a")), Approved)


async def test_who_waits_for_a_merchant_holds_up_no_other_merchant_of_his_payers(
    batcher: Batcher, clean: Stores
) -> None:
    payers = (1, 2, 3)
    assert isinstance(await charge(batcher, a_charge(merchant_id="other")), Approved)
    async with locked(clean.database_url, "merchant:default"):
        waiting = [asyncio.create_task(charge(batcher, a_charge(user_id=u))) for u in payers]
        await asyncio.sleep(0.6)
        for user_id in payers * 5:
            async with asyncio.timeout(QUICK / 4):
                command = a_charge(user_id=user_id, merchant_id="other")
                assert isinstance(await charge(batcher, command), Approved)
        assert not any(task.done() for task in waiting)
    assert [type(await task) for task in waiting] == [Approved] * 3


async def test_who_waits_for_a_locked_account_is_told_so_in_time(
    batcher: Batcher, clean: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many accounts are locked; and a lock that goes lets its own charges go on at once."""
    monkeypatch.setattr("picopay.charges.waiting.LOCKED_SECONDS", 1.0)
    owners = ["user:1", "user:2", "merchant:default"]
    async with locked(clean.database_url, *owners), asyncio.timeout(QUICK):
        waiting = [asyncio.create_task(charge(batcher, a_charge(user_id=u))) for u in (1, 2, 3)]
        told = [await task for task in waiting]
    assert [d.reason.code for d in told if isinstance(d, Declined)] == ["overloaded"] * 3
    async with asyncio.timeout(QUICK):
        again = [await charge(batcher, a_charge(user_id=user_id)) for user_id in (1, 2, 3)]
    assert [type(decision) for decision in again] == [Approved] * 3


async def test_a_key_held_elsewhere_holds_up_no_other_charge_for_long(
    batcher: Batcher, clean: Stores
) -> None:
    """Nobody but its claimant knows a key before he commits: the charge cannot wait aside."""
    key = str(uuid4())
    async with connected(clean.database_url) as other:
        await other.execute("BEGIN")
        await other.execute(
            "INSERT INTO idempotency_keys (key, merchant_id, operation, resource_id)"
            " VALUES ($1, 'default', 'charge', $2)",
            key,
            uuid4(),
        )
        held = asyncio.create_task(charge(batcher, a_charge(key=key)))
        others = [asyncio.create_task(charge(batcher, a_charge(user_id=2))) for _ in range(31)]
        async with asyncio.timeout(3 * QUICK):
            assert {type(await task) for task in others} == {Approved}
            told = await held
        await other.execute("ROLLBACK")
    assert isinstance(told, Declined)
    assert told.reason.code == "overloaded"
    await asyncio.sleep(HELD_KEY_SECONDS)
    assert isinstance(await charge(batcher, a_charge(key=key)), Approved)


async def test_many_keys_held_elsewhere_are_told_in_time_and_then_at_once(
    batcher: Batcher, clean: Stores
) -> None:
    keys = [str(uuid4()) for _ in range(100)]
    async with connected(clean.database_url) as other:
        await other.execute("BEGIN")
        await other.executemany(
            "INSERT INTO idempotency_keys (key, merchant_id, operation, resource_id)"
            " VALUES ($1, 'default', 'charge', $2)",
            [(key, uuid4()) for key in keys],
        )
        async with asyncio.timeout(LOCKED_SECONDS + QUICK):
            told = await asyncio.gather(*(charge(batcher, a_charge(key=key)) for key in keys))
        assert {d.reason.code for d in told if isinstance(d, Declined)} == {"overloaded"}
        assert len(told) == len(keys)
        async with asyncio.timeout(QUICK / 2):
            again = await charge(batcher, a_charge(key=keys[-1]))
            assert isinstance(await charge(batcher, a_charge(user_id=2)), Approved)
        assert isinstance(again, Declined)
        await other.execute("ROLLBACK")
    await asyncio.sleep(HELD_KEY_SECONDS)
    assert isinstance(await charge(batcher, a_charge(key=keys[-1])), Approved)


async def test_who_waits_for_a_locked_table_is_told_in_time(
    batcher: Batcher, clean: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while somebody creates an index: no merchant is locked, and yet no charge can be made."""
    monkeypatch.setattr("picopay.charges.waiting.LOCKED_SECONDS", 1.0)
    async with connected(clean.database_url) as other:
        await other.execute("BEGIN; LOCK TABLE charges IN SHARE MODE")
        async with asyncio.timeout(2 * QUICK):
            told = await asyncio.gather(*(charge(batcher, a_charge(user_id=u)) for u in (1, 2, 3)))
        await other.execute("ROLLBACK")
    assert [d.reason.code for d in told if isinstance(d, Declined)] == ["overloaded"] * 3
    assert isinstance(await charge(batcher, a_charge()), Approved)


async def test_a_cancelled_charge_is_told_that_its_outcome_is_unknown(
    batcher: Batcher, clean: Stores
) -> None:
    """A server that has to end cancels what is still at work."""
    command = a_charge(key=str(uuid4()))
    async with locked(clean.database_url, "user:1"):
        waiting = asyncio.create_task(charge(batcher, command))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(OutcomeUnknown) as told:
            await waiting
    assert told.value.fields == {"charge_id": command.id}
