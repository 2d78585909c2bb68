"""SIGKILL at named points of a refund: afterwards each key has made exactly one refund.

The points are those of charges: a refund claims and commits at the same places.
"""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
from tests.processes import Server, Site, assert_ledger_clean
from tests.races.load import Answer, Caller, Wish, caller
from tests.races.truth import connected

pytestmark = pytest.mark.kill

FAULTS = Path(__file__).with_name("faults")
CHARGES, REFUNDS_EACH = 4, 5
# The calls before that one are let through: some refunds are answered by then.
AT_CALL = 6
PAUSE_SECONDS, TRIES_MAX = 0.05, 200


class Asking:
    """Refunds of several charges, of 1.00 each, and what they were answered."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = {str(uuid4()): path for path in paths for _ in range(REFUNDS_EACH)}
        self.answers: dict[str, list[Answer]] = {key: [] for key in self.paths}

    async def ask(self, by: Caller, key: str) -> bool:
        """Whether it was made; False when the server is gone, or told to come again."""
        try:
            answer = await by.post(self.paths[key], {"amount": 1}, {"Idempotency-Key": key})
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
        assert answer.status in {201, 503}, answer
        self.answers[key].append(answer)
        return answer.status == 201

    async def insist(self, by: Caller, key: str) -> None:
        for _ in range(TRIES_MAX):
            if await self.ask(by, key):
                return
            await asyncio.sleep(PAUSE_SECONDS)
        raise AssertionError(f"never made: {key}")

    def made(self, key: str) -> set[bytes]:
        return {answer.body for answer in self.answers[key] if answer.status == 201}


async def charges(by: Caller) -> list[str]:
    """The paths of their refunds."""
    users = await by.new_users(CHARGES)
    made = [await by.charge(Wish.of(user, 100)) for user in users]
    return [f"/v1/charges/{answer.json['transaction']['id']}/refunds" for answer in made]


async def assert_each_made_once(site: Site, asking: Asking) -> None:
    assert all(len(asking.made(key)) == 1 for key in asking.paths)
    async with connected(site.database_url) as connection:
        rows = await connection.fetch("SELECT refunded FROM charges")
        keys = await connection.fetch(
            "SELECT key FROM idempotency_keys k JOIN charge_refunds r ON r.id = k.resource_id"
            " JOIN postings p ON p.id = r.id WHERE p.kind = 'refund'"
        )
    assert [row[0] for row in rows] == [100 * REFUNDS_EACH] * CHARGES
    assert sorted(row[0] for row in keys) == sorted(asking.paths)
    assert_ledger_clean(site.data_dir)


@pytest.mark.parametrize("victim", ["self", "postgres"])
@pytest.mark.parametrize(
    "point",
    [
        pytest.param("after_claim", marks=pytest.mark.nightly),
        pytest.param("before_commit", marks=pytest.mark.nightly),
        "during_commit",
        pytest.param("commit_landed", marks=pytest.mark.nightly),
    ],
)
async def test_what_is_killed_at_any_point_of_a_refund_leaves_each_key_exactly_one(
    site: Site, point: str, victim: str
) -> None:
    armed = site.data_dir.parent / "fault.armed"
    server = Server(site.data_dir)
    site.adopt(server)
    fault = {"FAULT": f"{point}:{victim}:{AT_CALL}", "FAULT_ARMED": str(armed)}
    server.start({"PYTHONPATH": str(FAULTS), "PICOPAY_WORKER": "false", **fault})
    async with caller(server.url) as by:
        asking = Asking(await charges(by))
        armed.touch()
        await asyncio.gather(*(asking.ask(by, key) for key in [*asking.paths] * 2))
    assert armed.with_suffix(".struck").exists(), "the fault has not struck"

    if victim == "self":
        assert server.process.wait(10) == -signal.SIGKILL
        await asyncio.to_thread(server.start)
    async with caller(server.url) as by:
        await asyncio.gather(*(asking.insist(by, key) for key in [*asking.paths] * 2))
    await assert_each_made_once(site, asking)
