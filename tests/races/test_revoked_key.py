"""A revoked API key stops working within 5 seconds in every process."""

import asyncio
import time

import pytest
from tests.processes import Server, picopay
from tests.races.conftest import Pair
from tests.races.load import Wish, caller, measured_figure
from tests.races.truth import connected

pytestmark = pytest.mark.kill

REVOKED_SECONDS_MAX = 5


async def test_a_revoked_key_stops_within_5_seconds_in_two_processes(pair: Pair) -> None:
    (user,) = await pair.callers[0].new_users(1)
    key = await asyncio.to_thread(picopay, pair.site.data_dir, "keys", "create", "doomed")
    for server in pair.servers * 2:  # both know it, and keep it in memory
        assert await _status(server, key["key"], user) == 200

    async with connected(pair.url) as owner:
        query = "UPDATE api_keys SET revoked_at = now() WHERE id = $1"
        await owner.execute(query, key["id"])
    revoked_at = time.monotonic()
    refused = [_refused_at(server, key["key"], user) for server in pair.servers]
    took = max(await asyncio.gather(*refused)) - revoked_at

    measured_figure("revoked_ms", 1000 * took)
    assert took < REVOKED_SECONDS_MAX
    for server in pair.servers:
        assert await _status(server, key["key"], user) == 401


async def _refused_at(server: Server, api_key: str, user: int) -> float:
    deadline = time.monotonic() + 2 * REVOKED_SECONDS_MAX
    while await _status(server, api_key, user) != 401:
        assert time.monotonic() < deadline, "the key still works"
        await asyncio.sleep(0.05)
    return time.monotonic()


async def _status(server: Server, api_key: str, user: int) -> int:
    async with caller(server.url, api_key) as by:
        return (await by.charge(Wish.of(user))).status
