"""Chores on a real database end when they are told to, whatever they are at."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import asyncpg
import pytest
from tests.conftest import serving
from tests.integration.outbox.workers import an_event, append

from picopay.infra import metrics
from picopay.infra.db import Db
from picopay.infra.settings import Settings
from picopay.outbox import chores, service
from picopay.outbox.chores import Chores, Sampler
from picopay.outbox.model import Depth

STOP_SECONDS_MAX = 5
COMMIT_SECONDS = 2
_SLOW_COMMIT = f"""
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_sleep({COMMIT_SECONDS}); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slowly AFTER UPDATE ON outbox_queue DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION slowly()
"""


@pytest.fixture
async def slow_commit(owner: asyncpg.Connection) -> AsyncIterator[None]:
    """Of whoever changes the queue."""
    await owner.execute(_SLOW_COMMIT)
    yield
    await owner.execute("DROP FUNCTION slowly CASCADE")


async def test_a_chore_that_is_stopped_while_it_commits_ends(
    db: Db, owner: asyncpg.Connection, slow_commit: None
) -> None:
    await append(db, an_event(ordered=True), an_event(ordered=True))
    await owner.execute("DELETE FROM outbox_queue WHERE seq = 1")
    mine = Chores(db, "me", 30)
    committing = """SELECT count(*) FROM pg_stat_activity WHERE query = 'COMMIT'
                       AND state = 'active' AND datname = current_database()"""
    give_up_at = monotonic() + STOP_SECONDS_MAX
    while not await owner.fetchval(committing):
        assert monotonic() < give_up_at
        await asyncio.sleep(0.01)
    async with asyncio.timeout(STOP_SECONDS_MAX):
        await mine.stop()


async def test_a_process_that_shows_metrics_samples_whoever_holds_duties(
    settings: Settings, db: Db, owner: asyncpg.Connection
) -> None:
    """Without a worker, as with `--no-worker`."""
    await append(db, an_event("a"), an_event("b", delay_seconds=60))
    await owner.execute(
        "INSERT INTO worker_duties VALUES ('sample', 'a worker without a page', now() + '1 h')"
    )
    metrics.outbox_pending.set(0)
    async with serving(settings) as client:
        give_up_at = monotonic() + STOP_SECONDS_MAX
        while "\noutbox_pending 2.0\n" not in (await client.get("/metrics")).text:
            assert monotonic() < give_up_at
            await asyncio.sleep(0.05)
        assert "\noutbox_due 1.0\n" in (await client.get("/metrics")).text


async def test_a_chore_that_failed_slowly_is_done_again_as_soon_as_ever(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    async def fail_slowly(_db: Db) -> Depth:
        asked.append(monotonic())
        await asyncio.sleep(0.3)
        raise TimeoutError

    monkeypatch.setattr(service, "depth", fail_slowly)
    monkeypatch.setattr(chores, "SAMPLE_SECONDS", 0.1)
    sampler = Sampler(db)
    await asyncio.sleep(1.5)
    await sampler.stop()
    assert len(asked) >= 3
