"""Who wakes workers, and that nothing depends on it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from time import monotonic

import asyncpg
import pytest
from tests.integration.outbox.workers import an_event, append, drained, eventually, working

from picopay.infra.db import Db
from picopay.infra.tx import Tx
from picopay.outbox.bell import LISTEN_AGAIN_SECONDS, Announcer, Bell, Listener
from picopay.outbox.consumer import Consumer
from picopay.outbox.model import Event
from picopay.outbox.pace import LOOK_BACK_SECONDS

LISTENING = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND query = 'LISTEN "picopay_outbox"'"""


@pytest.fixture
async def heard(db: Db, owner: asyncpg.Connection) -> AsyncIterator[asyncio.Event]:
    """What a worker of another process hears."""
    bell = Bell()
    listener = Listener(db, bell)
    await until_listening(owner)
    yield bell.listener("tests")
    await listener.stop()


async def until_listening(owner: asyncpg.Connection, listeners: int = 1) -> None:
    give_up_at = monotonic() + 10
    while (found := await owner.fetchval(LISTENING)) != listeners:
        assert monotonic() < give_up_at, found
        await asyncio.sleep(0.01)


@pytest.fixture
async def announcer(db: Db) -> AsyncIterator[Announcer]:
    announcer = Announcer(db)
    yield announcer
    await announcer.stop()


async def test_an_announcement_is_heard_in_another_process(
    heard: asyncio.Event, announcer: Announcer
) -> None:
    for _ in range(3):
        heard.clear()
        announcer.ring("tests")
        await asyncio.wait_for(heard.wait(), 2)


async def test_who_is_not_meant_goes_on_sleeping(db: Db, owner: asyncpg.Connection) -> None:
    bell = Bell()
    meant, others = bell.listener("meant"), bell.listener("others")
    bell.ring("meant", "nobody-here")
    assert (meant.is_set(), others.is_set()) == (True, False)
    meant.clear()
    listener, announcer = Listener(db, bell), Announcer(db)
    await until_listening(owner)
    announcer.ring("nobody-here", "meant")
    await asyncio.wait_for(meant.wait(), 2)
    assert not others.is_set()
    await announcer.stop()
    await listener.stop()


async def test_a_storm_of_announcements_is_a_few(
    heard: asyncio.Event, announcer: Announcer, owner: asyncpg.Connection
) -> None:
    got: list[object] = []
    await owner.add_listener("picopay_outbox", lambda *told: got.append(told))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    for _ in range(1000):
        announcer.ring("tests")
        await asyncio.sleep(0)
    await asyncio.wait_for(heard.wait(), 2)
    await asyncio.sleep(0.1)
    assert 1 <= len(got) < 50


async def test_who_was_cut_off_listens_again(
    heard: asyncio.Event, announcer: Announcer, owner: asyncpg.Connection
) -> None:
    cut = LISTENING.replace("count(*)", "pg_terminate_backend(pid, 2000)")
    assert await owner.fetchval(cut)
    await asyncio.sleep(LISTEN_AGAIN_SECONDS)
    await until_listening(owner)
    announcer.ring("tests")
    await asyncio.wait_for(heard.wait(), 2)


async def test_a_connection_that_listened_does_not_go_on_in_the_pool(
    db: Db, owner: asyncpg.Connection
) -> None:
    listener = Listener(db, Bell())
    await until_listening(owner)
    await listener.stop()
    await until_listening(owner, 0)


async def test_what_was_committed_long_after_it_was_due_is_found(
    db: Db, owner: asyncpg.Connection
) -> None:
    seen: list[str] = []

    async def together(_tx: Tx, events: Sequence[Event]) -> None:
        seen.extend(event.aggregate for event in events)

    async with working(db, Consumer("tests", together=together)):
        await asyncio.sleep(0.2)
        async with owner.transaction():
            await append(db, an_event("late"))
            await owner.execute(
                "UPDATE outbox_queue SET available_at = now() - $1::float8 * interval '1 second'",
                100 * LOOK_BACK_SECONDS,
            )
        await eventually(lambda: seen == ["late"], seconds=3)
        await drained(owner)
