"""SIGTERM under load: what was accepted is answered, and what was answered is in the database."""

import asyncio
import os
import signal
from collections import Counter

import pytest
from tests.processes import Site
from tests.races.load import Answer, Caller, Wish, caller
from tests.races.truth import charges_of, connected, locked, wait_for_waiters

from picopay.embedded.servers import acquire

pytestmark = pytest.mark.kill


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_terminated_server_answers_every_charge_that_it_makes(
    site: Site, workers: int
) -> None:
    with acquire(site.data_dir) as lease:  # keeps the database for the questions at the end
        server = site.serve(workers=workers)
        asked: dict[str, Answer | None] = {}
        ended = asyncio.Event()
        async with caller(server.url) as by:
            users = await by.new_users(20)
            load = [
                asyncio.create_task(_charge_until_gone(by, user, asked, ended))
                for user in users * 2
            ]
            await asyncio.sleep(1.5)
            status = await asyncio.to_thread(server.stop)
            ended.set()
            await asyncio.gather(*load)
        made = await charges_of(lease.servers.database_url, list(asked))

    answered = {key for key, answer in asked.items() if answer and answer.status == 200}
    assert status == 0
    assert len(answered) > 200
    assert {a.status for a in asked.values() if a} <= {200, 503}
    # Both ways: no answer without its charge, and no charge without its answer.
    assert made == Counter(answered)


async def test_a_terminated_server_waits_for_a_charge_that_waits_for_its_payer(
    site: Site,
) -> None:
    with acquire(site.data_dir) as lease:
        url = lease.servers.database_url
        server = site.serve()
        async with caller(server.url) as by:
            (user,) = await by.new_users(1)
            wish = Wish.of(user)
            async with locked(url, f"user:{user}"):
                waiting = asyncio.create_task(by.charge(wish))
                await wait_for_waiters(url, 1)
                os.kill(server.process.pid, signal.SIGTERM)
                await asyncio.sleep(1)
                assert server.process.poll() is None
                assert not waiting.done()
            answer = await waiting
        assert await asyncio.to_thread(server.stop) == 0
        assert answer.status == 200
        assert await charges_of(url, [wish.key]) == {wish.key: 1}
        async with connected(url) as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'picopay'"
            assert await connection.fetchval(query) == 0


async def _charge_until_gone(
    by: Caller, user: int, asked: dict[str, Answer | None], ended: asyncio.Event
) -> None:
    while not ended.is_set():
        wish = Wish.of(user)
        asked[wish.key] = None
        asked[wish.key] = answer = await by.try_charge(wish)
        if answer is None:
            await asyncio.sleep(0.01)
