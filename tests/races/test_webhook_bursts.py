"""Webhooks that all come at once, and servers that end before what they accepted is processed."""

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest
from tests.processes import Site, get
from tests.races.load import Caller, caller, measured_figure
from tests.races.truth import connected
from tests.races.webhooks import (
    Body,
    assert_each_is_posted_once,
    listed,
    send_all,
    transactions,
    until_processed,
)

from picopay.embedded.servers import acquire

pytestmark = pytest.mark.kill

BURST = 1000
# For the whole burst; the source's sixteenth webhook waited for 30 s, and its fortieth for ever.
ACKNOWLEDGED_SECONDS_MAX = 5
DELAY_SECONDS = 3
PROCESSED_SECONDS_MAX = 15
# Far from each other, from UTC and from this machine's: neither may show.
SERVER_TIME_ZONE, DATABASE_TIME_ZONE = "Asia/Kolkata", "America/New_York"


async def test_a_burst_is_acknowledged_in_time_and_processed_after_its_delay(site: Site) -> None:
    environment = {
        "TRANSACTION_PROCESSING_DELAY_SECONDS": str(DELAY_SECONDS),
        "TZ": SERVER_TIME_ZONE,
    }
    with acquire(site.data_dir):
        await _set_time_zone(site)
        server = site.serve(environment=environment)
    bodies = transactions(BURST)
    async with caller(server.url) as by:
        began, started = datetime.now(UTC), monotonic()
        answers = await send_all(by, bodies)
        took = monotonic() - started
        measured_figure("burst_ms", 1000 * took)
        assert {answer.status for answer in answers} == {202}
        assert took < ACKNOWLEDGED_SECONDS_MAX
        assert get(server.port, "/health", timeout_seconds=1)[0] == 200
        await until_processed(site.database_url, BURST, PROCESSED_SECONDS_MAX)
        shown = await listed(by)
        await _assert_balances_agree(by, bodies)
    assert {item["transaction_id"] for item in shown} == {b["transaction_id"] for b in bodies}
    assert len(shown) == BURST
    _assert_times_are_each_ones_own(shown, began)
    await assert_each_is_posted_once(site, bodies)


async def _set_time_zone(site: Site) -> None:
    async with connected(site.database_url) as owner:
        name = await owner.fetchval("SELECT current_database()")
        await owner.execute(f"ALTER DATABASE {name} SET timezone = '{DATABASE_TIME_ZONE}'")
    async with connected(site.database_url) as owner:
        assert await owner.fetchval("SHOW timezone") == DATABASE_TIME_ZONE


def _assert_times_are_each_ones_own(shown: list[Body], began: datetime) -> None:
    """A part of a burst shares a commit, but no two requests share a time of arrival."""
    ended = datetime.now(UTC)
    times = [
        (datetime.fromisoformat(item["created_at"]), datetime.fromisoformat(item["processed_at"]))
        for item in shown
    ]
    assert all(item["created_at"].endswith("Z") for item in shown)
    assert all(item["processed_at"].endswith("Z") for item in shown)
    assert len({created for created, _ in times}) > BURST * 0.9
    assert all(began <= created < processed <= ended for created, processed in times)
    delays = [processed - created for created, processed in times]
    assert min(delays) >= timedelta(seconds=DELAY_SECONDS)


async def _assert_balances_agree(by: Caller, bodies: list[Body]) -> None:
    accounts = {body[side] for body in bodies for side in ("source_account", "destination_account")}
    assert len(accounts) == 8
    total = 0
    for account in accounts:
        items = await listed(by, account=account, status="PROCESSED")
        assert items
        summed = sum(i["amount"] if i["destination_account"] == account else -i["amount"] for i in items)  # fmt: skip  # noqa: E501
        answer = await by.get(f"/v1/accounts/external:{account}")
        assert answer["balances"] == [{"currency": "INR", "balance": summed}]
        total += summed
    assert total == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_what_was_accepted_before_a_restart_is_processed_after_it(
    site: Site, end: signal.Signals
) -> None:
    """The source lost all of it; nothing here is sent a second time."""
    server = site.serve(environment={"TRANSACTION_PROCESSING_DELAY_SECONDS": str(DELAY_SECONDS)})
    bodies = transactions(100)
    async with caller(server.url) as by:
        assert {answer.status for answer in await send_all(by, bodies)} == {202}
    await asyncio.to_thread(server.stop, end)
    stopped = datetime.now(UTC)
    await asyncio.sleep(DELAY_SECONDS)
    await asyncio.to_thread(server.start)
    await until_processed(site.database_url, len(bodies), PROCESSED_SECONDS_MAX)
    async with connected(site.database_url) as owner:
        assert await owner.fetchval("SELECT min(processed_at) FROM transfers") > stopped
    await assert_each_is_posted_once(site, bodies)
