"""The lanes on a real database: who waits for a locked account, and who does not."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests.builders import a_charge, a_deposit, connect
from tests.conftest import Stores

from picopay.charges.batcher import Batcher
from picopay.charges.model import Approved, ChargeCommand, Decision, Declined, Replayed
from picopay.idempotency.cache import ReplayCache
from picopay.infra.db import Db
from picopay.users import service as users

QUICK = 2.0  # seconds; a lane that waits, waits for as long as the lock is held


@pytest.fixture
async def batcher(clean: Stores) -> AsyncIterator[Batcher]:
    """Without Redis; three users of 1000.00 USD, and a merchant who has an account."""
    db = Db(clean.database_url, reserved=True)
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


async def test_a_replay_does_not_wait_for_the_payer_and_a_new_charge_does(
    batcher: Batcher, clean: Stores
) -> None:
    made = await charge(batcher, a_charge(key="a"))
    assert isinstance(made, Approved)
    other = await connect(clean.database_url)
    async with other.transaction():
        await other.execute("SELECT 1 FROM accounts WHERE owner = 'user:1' FOR UPDATE")
        new = asyncio.create_task(charge(batcher, a_charge(key="b")))
        await asyncio.sleep(0.3)
        async with asyncio.timeout(QUICK):
            assert isinstance(await charge(batcher, a_charge(user_id=2)), Approved)
            again = [await charge(batcher, a_charge(key="a")) for _ in range(3)]
            assert isinstance(await charge(batcher, a_charge(999, key="a")), Declined)
        assert again == [Replayed(made.charge)] * 3
        assert not new.done()
    assert isinstance(await new, Approved)
    await other.close()


async def test_a_cancelled_statement_is_told_to_be_tried_again(
    batcher: Batcher, clean: Stores, owner: asyncpg.Connection
) -> None:
    """A statement that takes too long is cancelled likewise: nobody's charge is at fault."""
    other = await connect(clean.database_url)
    async with other.transaction():
        await other.execute("SELECT 1 FROM accounts WHERE owner = 'user:1' FOR UPDATE")
        waiting = asyncio.create_task(charge(batcher, a_charge(key="a")))
        blocked = """SELECT pg_cancel_backend(pid) FROM pg_stat_activity
                      WHERE wait_event_type = 'Lock' AND datname = current_database()"""
        await asyncio.sleep(0.5)  # by then it waits in a side lane
        assert len(await owner.fetch(blocked)) == 1
        async with asyncio.timeout(QUICK):
            told = await waiting
    assert isinstance(told, Declined)
    assert told.reason.code == "overloaded"
    assert isinstance(await charge(batcher, a_charge(key="a")), Approved)
    await other.close()
