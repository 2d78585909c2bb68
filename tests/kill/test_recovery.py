"""PostgreSQL killed under load, and everything killed at random: charges go on by themselves."""

import asyncio
import os
import random
import signal
import time
from itertools import pairwise

import pytest
from tests.embedded.world import kill, wait_until
from tests.kill.shoppers import (
    AGAIN_MAX,
    Shopping,
    assert_all_is_right,
    assert_told_is_there,
    load,
)
from tests.processes import Server, Site, get
from tests.races.load import Wish, caller, measured_figure

from picopay.charges.service import LOST_DATABASE_SECONDS

pytestmark = pytest.mark.kill

RECOVERED_SECONDS_MAX = 10
# A charge may wait for the batch before its own, and both for the database to come back.
TOLD_SECONDS_MAX = 2 * LOST_DATABASE_SECONDS + 2
SOAK_SECONDS = 20
CHARGES_MIN = 200
SLOW_SECONDS_MAX = 60
VICTIMS = ["server", "server", "postgres", "valkey"]


async def test_charges_recover_by_themselves_when_postgresql_is_killed_under_load(
    site: Site,
) -> None:
    server = site.serve()
    shopping, moments = Shopping(), list[float]()
    async with caller(server.url) as by:
        users = await by.new_users(16)
        async with load(shopping, [by], users, moments):
            for _ in range(3):
                await asyncio.sleep(1.5)
                kill(site.world.postmaster())
            await asyncio.sleep(3)
            # /health never depends on it.
            assert get(server.port, "/health", timeout_seconds=1)[0] == 200
        gap = max(later - earlier for earlier, later in pairwise(moments))
        measured_figure("recovery_ms", 1000 * gap)
        assert gap < RECOVERED_SECONDS_MAX
        assert time.monotonic() - moments[-1] < RECOVERED_SECONDS_MAX
        assert shopping.statuses <= {200, 503}
        await assert_told_is_there(site, shopping)
        await shopping.ask_again(by, answered_max=AGAIN_MAX)
    await assert_all_is_right(site, shopping)


async def test_a_postgresql_that_stays_away_is_told_in_time_and_harms_nothing(site: Site) -> None:
    server = site.serve()
    shopping = Shopping()
    async with caller(server.url) as by:
        users = await by.new_users(4)
        os.kill(site.world.keeper(), signal.SIGSTOP)  # so that it does not start another
        kill(site.world.postmaster())
        started = time.monotonic()
        answers = await asyncio.gather(*(shopping.ask(by, Wish.of(user)) for user in users))
        measured_figure("told_ms", 1000 * (time.monotonic() - started))
        assert {answer.code for answer in answers if answer} == {"database-unavailable"}
        assert all(answer.retry_after for answer in answers if answer)
        assert time.monotonic() - started < TOLD_SECONDS_MAX
        assert get(server.port, "/health", timeout_seconds=1)[0] == 200
        assert get(server.port, "/healthz")[0] == 503
        os.kill(site.world.keeper(), signal.SIGCONT)
        await shopping.ask_again(by)
        assert get(server.port, "/healthz")[0] == 200
    await assert_all_is_right(site, shopping)


@pytest.mark.nightly
async def test_random_kills_for_20_seconds_lose_nothing_and_double_nothing(site: Site) -> None:
    chance = random.Random(os.environ.get("SOAK_SEED", "20"))  # noqa: S311 - not for secrets
    servers = (site.serve(), site.serve())
    shopping, moments = Shopping(), list[float]()
    killed, planned = list[str](), list[str]()
    async with caller(servers[0].url) as first, caller(servers[1].url) as second:
        users = await first.new_users(12)
        async with load(shopping, (first, second), users, moments):
            end = time.monotonic() + SOAK_SECONDS
            # A slow machine is up for less of the time: until there was enough to kill.
            while time.monotonic() < end or (
                len(moments) <= CHARGES_MIN and time.monotonic() < end + SLOW_SECONDS_MAX
            ):
                await asyncio.sleep(chance.uniform(0.2, 1.5))
                if not planned:
                    planned = chance.sample(VICTIMS, len(VICTIMS))
                killed.append(planned.pop())
                await _kill(site, chance.choice(servers), killed[-1])
        measured_figure("kills", len(killed))
        measured_figure("charges", len(moments))
        assert set(killed) == set(VICTIMS)
        assert len(moments) > CHARGES_MIN
        await assert_told_is_there(site, shopping)
        await shopping.ask_again(first, answered_max=AGAIN_MAX)
    assert shopping.statuses <= {200, 503}
    await assert_all_is_right(site, shopping)


async def _kill(site: Site, server: Server, victim: str) -> None:
    if victim == "server":
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(_start, server)
    elif victim == "postgres":
        kill(site.world.postmaster())
    else:
        kill(site.world.valkey())


def _start(server: Server) -> None:
    """Again, should PostgreSQL be on its way back from a kill just now."""

    def started() -> bool:
        try:
            server.start()
        except AssertionError:
            return False
        return True

    wait_until(started, 30)
