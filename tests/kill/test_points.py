"""SIGKILL at named points of a charge: afterwards each key has made exactly one charge.

The points are struck from outside the source, by `faults/sitecustomize.py`.
"""

import asyncio
import signal
from pathlib import Path

import pytest
from tests.embedded.world import wait_until
from tests.kill.shoppers import Shopping, assert_all_is_right, assert_told_is_there
from tests.processes import Server, Site, metric
from tests.races.load import caller

pytestmark = pytest.mark.kill

FAULTS = Path(__file__).with_name("faults")
CHARGES = 6
# The calls before that one are let through: some charges are answered by then.
AT_CALL = 4


class Struck:
    """A server in which a fault waits to be armed."""

    def __init__(self, site: Site, point: str, victim: str) -> None:
        self._armed = site.data_dir.parent / "fault.armed"
        self._has_struck = self._armed.with_suffix(".struck")
        environment = {
            "PYTHONPATH": str(FAULTS),
            "FAULT": f"{point}:{victim}:{AT_CALL}",
            "FAULT_ARMED": str(self._armed),
        }
        # Only for the first start: the second is to recover.
        self.server = Server(site.data_dir)
        site.adopt(self.server)
        self.server.start(environment)

    async def go_shopping(self) -> Shopping:
        """Charges of some users, each sent twice at once, until all are answered or in vain."""
        shopping = Shopping()
        async with caller(self.server.url) as by:
            users = await by.new_users(8)
            self._armed.touch()
            await shopping.once_each(by, users, CHARGES)
        assert self._has_struck.exists(), "the fault has not struck"
        return shopping


@pytest.mark.parametrize(
    "point",
    ["after_claim", "before_commit", "during_commit", "commit_landed", "after_commit",
     "during_cache_write"],
)  # fmt: skip
async def test_a_server_killed_at_any_point_leaves_each_key_exactly_one_charge(
    site: Site, point: str
) -> None:
    struck = Struck(site, point, "self")
    shopping = await struck.go_shopping()
    assert struck.server.process.wait(10) == -signal.SIGKILL
    assert shopping.done
    assert shopping.unanswered
    wait_until(lambda: not site.everything())

    await asyncio.to_thread(struck.server.start)
    await assert_told_is_there(site, shopping)
    async with caller(struck.server.url) as by:
        await shopping.ask_again(by)
    await assert_all_is_right(site, shopping)


@pytest.mark.parametrize(
    "point", ["after_claim", "before_commit", "during_commit", "commit_landed", "after_commit"]
)
async def test_a_postgresql_killed_at_any_point_leaves_each_key_exactly_one_charge(
    site: Site, point: str
) -> None:
    struck = Struck(site, point, "postgres")
    postmaster_before = site.world.postmaster()
    shopping = await struck.go_shopping()
    # The batch that was struck is settled by the server itself: nobody is refused or left alone.
    assert shopping.statuses == {200}
    assert not shopping.unanswered
    assert site.world.postmaster() != postmaster_before
    if point in {"during_commit", "commit_landed"}:
        assert metric(struck.server.port, "database_commits_in_doubt_total") >= 1

    async with caller(struck.server.url) as by:
        await shopping.ask_again(by)
    await assert_all_is_right(site, shopping)
    assert struck.server.stop() == 0


# Of the two by night it knows nothing: nobody asks it between a claim and the end of a COMMIT.
@pytest.mark.parametrize(
    "point",
    [
        pytest.param("after_claim", marks=pytest.mark.nightly),
        pytest.param("before_commit", marks=pytest.mark.nightly),
        "after_commit",
        "during_cache_write",
    ],
)
async def test_a_valkey_killed_at_any_point_is_noticed_by_nobody(site: Site, point: str) -> None:
    struck = Struck(site, point, "valkey")
    valkey_before = site.world.valkey()
    shopping = await struck.go_shopping()
    assert shopping.statuses == {200}
    assert not shopping.unanswered

    async with caller(struck.server.url) as by:
        await shopping.ask_again(by)
    await assert_all_is_right(site, shopping)
    wait_until(lambda: site.world.valkey() != valkey_before)
    assert struck.server.stop() == 0
