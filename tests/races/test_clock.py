"""A worker whose clock is wrong works as any other: due times and leases are the database's."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from tests.embedded.world import wait_until
from tests.kill.crew import Worker
from tests.processes import PICOPAY, Site, clean_environment
from tests.races.load import Caller, caller
from tests.races.truth import connected
from tests.races.webhooks import (
    Body,
    assert_each_is_posted_once,
    send_all,
    transactions,
    until_processed,
)

from picopay.transfers.handlers import TRANSFERS

pytestmark = pytest.mark.kill

SHIM = Path(__file__).parent / "clock"
DELAY_SECONDS = 1
LATE_SECONDS_MAX = 5
LEASE_SECONDS = 1
HELD_SECONDS = 4 * LEASE_SECONDS
START_SECONDS_MAX = 20


@contextmanager
def wrong_worker(site: Site, told: Path, shift_seconds: int, gate: Path) -> Generator[None]:
    """A `picopay worker` of its own, which tells the file what time it is for it.

    While there is a gate, what it has claimed waits.
    """
    environment = {
        "OUTBOX_LEASE_SECONDS": str(LEASE_SECONDS),
        "PYTHONPATH": str(SHIM),
        "LOG_LEVEL": "INFO",
        "CLOCK_SHIFT_SECONDS": str(shift_seconds),
        "CLOCK_TOLD": str(told),
        "CLOCK_GATE": str(gate),
    }
    log_file = told.with_suffix(".log")
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, PICOPAY, "worker", "--data-dir", site.data_dir],
            env=clean_environment() | environment,
            cwd=site.data_dir.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: told.exists() and bool(told.read_text()))
        for clock in told.read_text().split():
            assert float(clock) - time.time() == pytest.approx(shift_seconds, abs=30)
        wait_until(lambda: "worker.started" in log_file.read_text())  # it imports everything first
        yield
        assert process.poll() is None, log_file.read_text()
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def right_worker(site: Site) -> Generator[None]:
    worker = Worker(site.data_dir, {"OUTBOX_LEASE_SECONDS": str(LEASE_SECONDS)})
    try:
        worker.wait_until_started()
        yield
        assert worker.is_running(), worker.log.read_text()
    finally:
        worker.stop()


@pytest.mark.parametrize("shift_seconds", [-600, pytest.param(600, marks=pytest.mark.nightly)])
async def test_a_worker_whose_clock_is_wrong_keeps_delays_and_leases(
    site: Site, tmp_path: Path, shift_seconds: int
) -> None:
    server = site.serve(
        environment={
            "PICOPAY_WORKER": "false",
            "TRANSACTION_PROCESSING_DELAY_SECONDS": str(DELAY_SECONDS),
        }
    )
    bodies = transactions(20)
    gate = tmp_path / "gate"
    async with caller(server.url) as by, connected(site.database_url) as owner:
        with wrong_worker(site, tmp_path / "shifted", shift_seconds, gate):
            assert {a.status for a in await send_all(by, bodies[:10])} == {202}
            await until_processed(site.database_url, 10, DELAY_SECONDS + LATE_SECONDS_MAX)
            gate.touch()
            held = await _held_by_all_its_slots(by, owner, bodies[10:])
            with right_worker(site):
                rest = bodies[10 + TRANSFERS.concurrency :]
                assert {a.status for a in await send_all(by, rest)} == {202}
                await _assert_leases_hold(owner, held)
                gate.unlink()
                await until_processed(site.database_url, len(bodies), LATE_SECONDS_MAX)
        await _assert_in_time(owner, bodies[:10])
    await assert_each_is_posted_once(site, bodies)


Leases = dict[str, tuple[str | None, int]]


async def _leases(owner: asyncpg.Connection) -> Leases:
    """(whose, attempts) of what is owed, by aggregate."""
    rows = await owner.fetch("SELECT aggregate, leased_by, attempts FROM outbox_queue")
    return {name: (leased_by, attempts) for name, leased_by, attempts in rows}


async def _held_by_all_its_slots(
    by: Caller, owner: asyncpg.Connection, bodies: Sequence[Body]
) -> Leases:
    """One event in each, so that what comes later is left for others."""
    for number, body in enumerate(bodies[: TRANSFERS.concurrency], 1):
        assert {a.status for a in await send_all(by, [body])} == {202}
        give_up_at = time.monotonic() + DELAY_SECONDS + LATE_SECONDS_MAX
        while (
            sum(leased_by is not None for leased_by, _ in (await _leases(owner)).values()) < number
        ):
            assert time.monotonic() < give_up_at
            await asyncio.sleep(0.02)
    return await _leases(owner)


async def _assert_leases_hold(owner: asyncpg.Connection, held: Leases) -> None:
    """For several leases' time, and until the other worker has done all the rest.

    Each is at most a lease's length from the database's now.
    """
    assert {attempts for _, attempts in held.values()} == {1}
    assert len({leased_by for leased_by, _ in held.values()}) == 1
    began = time.monotonic()
    while (now := await _leases(owner)) != held or time.monotonic() < began + HELD_SECONDS:
        assert time.monotonic() < began + HELD_SECONDS + START_SECONDS_MAX
        assert {name: now[name] for name in held} == held
        left = await owner.fetch(
            """SELECT extract(epoch FROM available_at - clock_timestamp())::float8
                 FROM outbox_queue WHERE aggregate = ANY($1::text[])""",
            list(held),
        )
        assert all(0 < seconds <= LEASE_SECONDS for (seconds,) in left)
        await asyncio.sleep(0.1)


async def _assert_in_time(owner: asyncpg.Connection, bodies: list[Body]) -> None:
    """`processed_at` is of the database's clock, and beyond the delay by little."""
    rows = await owner.fetch(
        """SELECT created_at, processed_at, clock_timestamp() FROM transfers
            WHERE transaction_id = ANY($1::text[])""",
        [body["transaction_id"] for body in bodies],
    )
    least = timedelta(seconds=DELAY_SECONDS)
    most = least + timedelta(seconds=LATE_SECONDS_MAX)
    assert len(rows) == len(bodies)
    for created, processed, now in rows:
        assert least <= processed - created < most
        assert created < processed < now
        assert abs(datetime.now(UTC) - now) < timedelta(seconds=30)
