"""Everything is killed at random while webhooks and charges come: none is lost, none doubled."""

import asyncio
import os
import random
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from redis import Redis
from redis.exceptions import RedisError
from tests.embedded.world import wait_until
from tests.kill.crew import Crew, supervised
from tests.kill.senders import Sending, assert_all_is_processed, webhooks
from tests.kill.shoppers import AGAIN_MAX, Shopping, assert_all_is_right, load
from tests.processes import Site
from tests.races.load import caller, measured_figure

from picopay.embedded import status

pytestmark = pytest.mark.kill

WORKERS = 2
SHOPPERS = 6
PAUSE_SECONDS = 0.05
SLOW_SECONDS_MAX = 60
VICTIMS = ["worker", "worker", "server", "postgres", "valkey", "cache"]


@pytest.fixture
def killed_crew(site: Site) -> Iterator[Crew]:
    """On a data directory of its own, since everything there is killed."""
    crew = Crew(site)
    yield crew
    crew.close()


@pytest.mark.parametrize(
    "seconds",
    [15, pytest.param(300, marks=[pytest.mark.nightly, pytest.mark.timeout(900)])],
)
async def test_random_kills_lose_no_webhook_and_no_charge_and_double_none(
    killed_crew: Crew, seconds: int
) -> None:
    seed = os.environ.get("SOAK_SEED") or secrets.token_hex(4)
    print(f"SOAK_SEED={seed}")  # noqa: T201 - shown when it fails
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    crew = killed_crew
    crew.be(WORKERS)
    sending, shopping, moments = Sending(), Shopping(), list[float]()
    async with caller(crew.server.url) as by:
        users = await by.new_users(SHOPPERS)
        async with (
            supervised(crew),
            load(shopping, [by], users, moments, pause_seconds=PAUSE_SECONDS),
            webhooks(sending, by),
        ):
            killed = await kill_at_random(
                crew,
                chance,
                seconds,
                lambda: min(len(sending.accepted), len(moments)) > 3 * seconds,
            )
        assert set(killed) == set(VICTIMS)
        measured_figure("kills", len(killed))
        measured_figure("webhooks", len(sending.accepted))
        measured_figure("charges", len(moments))
        assert len(sending.accepted) > 3 * seconds
        assert len(moments) > 3 * seconds

        await shopping.ask_again(by, answered_max=AGAIN_MAX)
        await sending.burst(by, chance.sample(list(sending.sent.values()), 30))
        assert shopping.statuses <= {200, 503}
        await assert_all_is_processed(crew.site.database_url, by, sending)
        await assert_all_is_right(crew.site, shopping)
    assert [worker.stop() for worker in crew.workers] == [0] * WORKERS


async def kill_at_random(
    crew: Crew, chance: random.Random, seconds: int, is_enough: Callable[[], bool]
) -> list[str]:
    """Every kind in turn, in an order that changes; those that were killed.

    On a slow machine, which is up for less of the time, it goes on until there was enough to kill.
    """
    killed, planned = list[str](), list[str]()
    end = time.monotonic() + seconds
    give_up_at = end + SLOW_SECONDS_MAX
    while time.monotonic() < end or (not is_enough() and time.monotonic() < give_up_at):
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        planned = planned or chance.sample(VICTIMS, len(VICTIMS))
        killed.append(planned.pop())
        await asyncio.to_thread(strike, crew, killed[-1], chance)
    return killed


def strike(crew: Crew, victim: str, chance: random.Random) -> None:
    world = crew.site.world
    if victim == "worker":
        chance.choice(crew.workers).stop(signal.SIGKILL)
    elif victim == "server":
        crew.server.kill()
    elif victim == "postgres":
        wait_until(lambda: signalled(crew, world.postmaster, signal.SIGQUIT))  # at once
    elif victim == "valkey":
        wait_until(lambda: signalled(crew, world.valkey, signal.SIGKILL))
    else:
        wait_until(lambda: flushed(crew))


def signalled(crew: Crew, pid_of: Callable[[], int], number: signal.Signals) -> bool:
    """False while it is on its way back from the kill before; its number may be another's then."""
    with suppress(OSError, ValueError, IndexError):
        pid = pid_of()
        if pid in crew.site.world.processes():
            os.kill(pid, number)
            return True
    return False


def flushed(crew: Crew) -> bool:
    told = status.read(crew.site.data_dir / "servers.json")
    if told is None or not told.redis_url:  # all users were killed, and the next is just coming
        return False
    with suppress(RedisError), Redis.from_url(told.redis_url) as redis:  # pyright: ignore[reportUnknownMemberType] - untyped
        return bool(redis.flushall())  # pyright: ignore[reportUnknownMemberType] - untyped
    return False
