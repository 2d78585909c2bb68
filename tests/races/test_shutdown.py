"""SIGTERM under load: what was accepted is answered, and what was answered is in the database."""

import asyncio
import os
import signal
from collections import Counter

import aiohttp
import pytest
from tests.processes import Site
from tests.races.load import Answer, Caller, Wish, caller
from tests.races.truth import charges_of, connected, locked

from picopay.charges.waiting import LOCKED_SECONDS
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


async def test_a_terminated_server_answers_whoever_waits_for_locked_accounts(site: Site) -> None:
    """Whose account is let go is charged; all others, however many, are told in time, and are not.

    They are answered as every problem is.
    """
    with acquire(site.data_dir) as lease:
        url = lease.servers.database_url
        server = site.serve()
        async with caller(server.url) as by:
            lucky, *wishes = [Wish.of(user) for user in await by.new_users(41)]
            async with locked(url, *(f"user:{wish.user_id}" for wish in wishes)):
                async with locked(url, f"user:{lucky.user_id}"):
                    waiting = [asyncio.create_task(by.charge(w)) for w in (lucky, *wishes)]
                    await asyncio.sleep(0.5)
                    os.kill(server.process.pid, signal.SIGTERM)
                    await asyncio.sleep(1)
                    assert server.process.poll() is None
                    assert not any(task.done() for task in waiting)
                assert (await waiting[0]).status == 200
                answers = await asyncio.gather(*waiting[1:])
                assert await asyncio.to_thread(server.stop) == 0
        assert {(a.status, a.code) for a in answers} == {(503, "overloaded")}
        assert max(answer.seconds for answer in answers) < LOCKED_SECONDS + 2
        assert await charges_of(url, [w.key for w in (lucky, *wishes)]) == {lucky.key: 1}
        async with connected(url) as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'picopay'"
            assert await connection.fetchval(query) == 0


async def test_a_server_that_is_told_twice_to_end_answers_with_problems_still(site: Site) -> None:
    with acquire(site.data_dir) as lease:
        server = site.serve()
        async with caller(server.url) as by:
            wishes = [Wish.of(user) for user in await by.new_users(20)]
            async with locked(
                lease.servers.database_url, *(f"user:{wish.user_id}" for wish in wishes)
            ):
                waiting = [asyncio.create_task(by.charge(wish)) for wish in wishes]
                await asyncio.sleep(0.5)
                for _ in range(2):
                    os.kill(server.process.pid, signal.SIGINT)
                    await asyncio.sleep(0.3)
                answers = await asyncio.gather(*waiting)
        assert {(a.status, a.code) for a in answers} == {(503, "outcome-unknown")}
        assert all(a.json["charge_id"] for a in answers)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.nightly)])
async def test_a_draining_server_says_so_and_serves_on_for_a_while(
    site: Site, workers: int
) -> None:
    server = site.serve(workers=workers, environment={"SHUTDOWN_DRAIN_SECONDS": "2"})
    async with caller(server.url) as by, aiohttp.ClientSession(server.url) as asking:
        (user,) = await by.new_users(1)
        assert await _readiness(asking) == (200, "healthy", None)
        os.kill(server.process.pid, signal.SIGTERM)
        await _drains(asking)
        assert await _readiness(asking) == (503, "draining", "close")
        # Whoever comes now has a connection of his own, and is served like any other.
        assert (await by.charge(Wish.of(user))).status == 200
    assert await asyncio.to_thread(server.process.wait, 30) == 0


async def test_a_second_sigterm_ends_a_draining_server_at_once(site: Site) -> None:
    server = site.serve(environment={"SHUTDOWN_DRAIN_SECONDS": "600"})
    server.process.terminate()
    async with aiohttp.ClientSession(server.url) as asking:
        await _drains(asking)
    assert await asyncio.to_thread(server.stop) == 0


async def _drains(asking: aiohttp.ClientSession) -> None:
    for _ in range(100):
        if (await _readiness(asking))[1] == "draining":
            return
        await asyncio.sleep(0.02)
    pytest.fail("does not say that it drains")


async def _readiness(asking: aiohttp.ClientSession) -> tuple[int, str, str | None]:
    async with asking.get("/readyz") as answer:
        status = (await answer.json())["status"]
        return answer.status, status, answer.headers.get("Connection")


async def _charge_until_gone(
    by: Caller, user: int, asked: dict[str, Answer | None], ended: asyncio.Event
) -> None:
    while not ended.is_set():
        wish = Wish.of(user)
        asked[wish.key] = None
        asked[wish.key] = answer = await by.try_charge(wish)
        if answer is None:
            await asyncio.sleep(0.01)
