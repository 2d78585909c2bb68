"""PostgreSQL ends at once, twice, while webhooks come and are processed: all of it goes on."""

import asyncio
import os
import signal
from itertools import pairwise
from time import monotonic

import aiohttp
import pytest
from tests.embedded.world import wait_until
from tests.processes import Site
from tests.races.load import Caller, caller, measured_figure
from tests.races.webhooks import (
    PATH,
    Body,
    assert_each_is_posted_once,
    transactions,
    until_processed,
)

pytestmark = pytest.mark.kill

# From PostgreSQL's end to the next webhook accepted, and to everything processed.
RECOVERED_SECONDS_MAX = 15
SENDERS = 8
ACCEPTED_BETWEEN = 40


async def test_webhooks_go_on_by_themselves_when_postgresql_is_stopped_under_load(
    site: Site,
) -> None:
    server = site.serve(environment={"TRANSACTION_PROCESSING_DELAY_SECONDS": "0.5"})
    end = asyncio.Event()
    accepted = list[tuple[float, Body]]()
    async with caller(server.url) as by:
        sending = [asyncio.create_task(_send(by, end, accepted)) for _ in range(SENDERS)]
        for _ in range(2):
            await _more(accepted)
            before = site.world.postmaster()
            os.kill(before, signal.SIGQUIT)
            await asyncio.to_thread(wait_until, lambda was=before: _is_another(site, was))
        await _more(accepted)
        end.set()
        await asyncio.gather(*sending)
    moments = sorted(moment for moment, _ in accepted)
    gap = max(later - earlier for earlier, later in pairwise(moments))
    measured_figure("recovery_ms", 1000 * gap)
    assert gap < RECOVERED_SECONDS_MAX
    await until_processed(site.database_url, len(accepted), RECOVERED_SECONDS_MAX)
    await assert_each_is_posted_once(site, [body for _, body in accepted])


async def _more(accepted: list[tuple[float, Body]]) -> None:
    """Two seconds at least, and however slow the machine is, until so many more are in."""
    wanted = len(accepted) + ACCEPTED_BETWEEN
    await asyncio.sleep(2)
    await asyncio.to_thread(wait_until, lambda: len(accepted) >= wanted, RECOVERED_SECONDS_MAX)


async def _send(by: Caller, end: asyncio.Event, accepted: list[tuple[float, Body]]) -> None:
    """One after the other, each again until it is accepted: as whoever sends webhooks does."""
    for body in transactions(100_000):
        while (status := await _status(by, body)) != 202:
            assert status in {None, 503}
            await asyncio.sleep(0.05)
        accepted.append((monotonic(), body))
        if end.is_set():
            return
        await asyncio.sleep(0.01)


async def _status(by: Caller, body: Body) -> int | None:
    try:
        return (await by.post(PATH, body)).status
    except (aiohttp.ClientError, TimeoutError):
        return None


def _is_another(site: Site, before: int) -> bool:
    try:
        return site.world.postmaster() != before
    except (FileNotFoundError, IndexError):
        return False
