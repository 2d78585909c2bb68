"""What is only measured now and then: the ledger, the database, its pools, the processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import asyncpg
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from tests.builders import a_deposit
from tests.conftest import Stores, serving
from tests.integration.outbox.workers import eventually

from picopay.audit import INVARIANTS, auditors
from picopay.infra import metrics, pools
from picopay.infra.db import DatabaseUnavailable, Db
from picopay.infra.settings import Settings
from picopay.outbox import service
from picopay.outbox.chores import Sampler
from picopay.users import service as users


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_drift_is_shown_until_it_is_mended(
    settings: Settings, db: Db, owner: asyncpg.Connection
) -> None:
    await users.create(db, 1)
    await users.deposit(db, a_deposit())
    often = settings.model_copy(update={"ledger_check_interval_seconds": 0.02})
    await owner.execute("UPDATE accounts SET credits = credits + 1 WHERE owner = 'user:1'")
    with capture_logs() as lines:
        await checked(often, lambda: sample("ledger_drift", invariant="zero-sum") == 1)
    assert sample("ledger_drift", invariant="balances") == 1
    assert sample("ledger_drift", invariant="charges") == 0
    assert (sample("ledger_checked_timestamp_seconds") or 0) > 0
    told = {line["invariant"] for line in lines if line["event"] == "ledger.drift"}
    assert told == {"balances", "zero-sum"}

    await owner.execute("UPDATE accounts SET credits = credits - 1 WHERE owner = 'user:1'")
    await checked(often, lambda: sample("ledger_drift", invariant="zero-sum") == 0)
    assert sample("ledger_drift", invariant="balances") == 0
    assert (sample("ledger_checked_timestamp_seconds") or 0) > 0


async def checked(settings: Settings, until: Callable[[], bool]) -> None:
    """By one that begins anew: after a check that took long, the next is not due for a while."""
    (auditor,) = auditors(settings)
    try:
        await eventually(until, 30)
    finally:
        await auditor.stop()


async def test_who_does_not_see_to_the_check_shows_no_drift(
    settings: Settings, db: Db, owner: asyncpg.Connection
) -> None:
    assert await service.hold_duty(db, "audit", "somebody else", 60)
    for invariant in INVARIANTS:
        metrics.ledger_drift.labels(invariant.name).set(3)
    metrics.ledger_checked.set_to_current_time()
    often = settings.model_copy(update={"ledger_check_interval_seconds": 0.02})
    (auditor,) = auditors(often)
    await eventually(lambda: sample("ledger_checked_timestamp_seconds") == 0)
    await auditor.stop()
    assert {sample("ledger_drift", invariant=each.name) for each in INVARIANTS} == {0}


def test_the_check_can_be_left_to_others(settings: Settings) -> None:
    assert auditors(settings.model_copy(update={"ledger_check_interval_seconds": 0})) == []


async def test_a_database_that_is_away_is_shown(
    db: Db, clean: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler(db)
    await eventually(lambda: sample("database_up") == 1)
    await sampler.stop()

    async def away(_db: Db) -> NoReturn:
        raise DatabaseUnavailable("the database cannot be reached")

    monkeypatch.setattr(service, "depth", away)
    sampler = Sampler(db)
    await eventually(lambda: sample("database_up") == 0)
    await sampler.stop()


async def test_pools_tell_what_is_in_use_and_what_was_waited_for(
    clean: Stores,
) -> None:
    db = Db(clean.database_url, pool_size=3, max_overflow=1)
    pools.measure()
    in_use, most = (sample(f"database_connections_{n}", pool="requests") for n in ("in_use", "max"))
    waits = sample("database_connection_wait_seconds_count", pool="requests")
    assert None not in (in_use, most, waits)
    assert (most or 0) >= 4
    async with db.read(), db.read():
        pools.measure()
        assert sample("database_connections_in_use", pool="requests") == (in_use or 0) + 2
    pools.measure()
    assert sample("database_connections_in_use", pool="requests") == in_use
    assert sample("database_connection_wait_seconds_count", pool="requests") == (waits or 0) + 2
    await db.close()


def test_what_a_killed_process_was_at_is_forgotten_and_what_it_did_is_not(tmp_path: Path) -> None:
    def process(*lines: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", "\n".join(("from picopay.infra import metrics", *lines))],
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    killed = process(
        "import os, signal",
        "metrics.queue_depth.set(5)",
        "metrics.cache_breaker_open.set(1)",
        "metrics.charge_succeeded.inc()",
        "os.kill(os.getpid(), signal.SIGKILL)",
    )
    assert killed.returncode == -signal.SIGKILL
    page = process("print(metrics.page()[0].decode())").stdout.splitlines()
    assert "charge_queue_depth 0.0" in page
    assert "replay_cache_breaker_open 0.0" in page
    assert 'charge_requests_total{status="success"} 1.0' in page
    (memory,) = [line for line in page if line.startswith("process_resident_memory_bytes ")]
    assert float(memory.split()[1]) > 1_000_000
    assert any(line.startswith("process_start_time_seconds ") for line in page)


async def test_a_queue_says_how_long_it_may_get(settings: Settings) -> None:
    async with serving(settings, charge_queue_max=77):
        assert sample("charge_queue_limit") == 77
