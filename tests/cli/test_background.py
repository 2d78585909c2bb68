"""Background work from the command line: a worker of its own, and dead letters."""

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from tests.conftest import Stores, serving
from tests.forks import run_command
from tests.integration.outbox.workers import CONSUMER, an_event, append, claim, drained, eventually
from tests.processes import PICOPAY, Ran, free_port, get, metric, told

from picopay.cli import worker as worker_command
from picopay.cli.worker import Pulse
from picopay.infra import metrics
from picopay.infra.db import Db
from picopay.infra.settings import Settings
from picopay.outbox import service
from picopay.outbox.model import Reason
from picopay.outbox.rules import Bury

ROOT = Path(__file__).parents[2]
LETTERS = 3


@pytest.fixture
def environment(clean: Stores) -> dict[str, str]:
    return {
        "DATABASE_URL": clean.database_url,
        "REDIS_URL": clean.redis_url,
        "PAYMENT_WEBHOOK_SECRET": "one-secret-of-our-own",
    }


@pytest.fixture
def metrics_port() -> int:
    return free_port()


@pytest.fixture
def worker(environment: dict[str, str], metrics_port: int) -> Iterator[subprocess.Popen[str]]:
    """Whose log is read by us alone."""
    process = subprocess.Popen(
        [PICOPAY, "worker", "--metrics-port", str(metrics_port)],
        env=os.environ | environment | {"LOG_FORMAT": "json"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def letters(environment: dict[str, str], *arguments: str) -> Ran:
    return run_command(["dead-letters", *arguments], os.environ | environment, cwd=ROOT)


@pytest.fixture
async def given_up(db: Db) -> None:
    await append(db, *(an_event(f"thing:{number}") for number in range(LETTERS)))
    for mine in await claim(db):
        verdict = Bury(Reason.EXHAUSTED)
        await service.fail(db, CONSUMER, mine, ValueError("the bank is closed"), verdict)


async def test_a_worker_handles_what_a_server_without_one_accepts_and_ends_when_told(
    settings: Settings,
    worker: subprocess.Popen[str],
    metrics_port: int,
    db: Db,
    owner: asyncpg.Connection,
) -> None:
    body = {
        "transaction_id": "txn_1",
        "source_account": "a",
        "destination_account": "b",
        "amount": 1,
        "currency": "EUR",
    }
    async with serving(settings, transaction_processing_delay_seconds=0) as client:
        sent = await client.post("/v1/webhooks/transactions", json=body)
        assert sent.status_code == 202
        await drained(owner, seconds=20)
        shown = await client.get("/v1/transactions/txn_1")
        assert shown.json()["status"] == "PROCESSED"
    done = 'outbox_attempts_total{consumer="transfers",outcome="done"}'
    assert metric(metrics_port, done) == 1
    await append(db, an_event())  # of a consumer that nobody is
    await eventually(lambda: metric(metrics_port, "outbox_pending") == 1)
    worker.send_signal(signal.SIGTERM)
    said, _ = worker.communicate(timeout=20)
    assert worker.returncode == 0, said
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["event"] for line in lines if line["event"].startswith("worker.")] == [
        "worker.started",
        "worker.stopped",
    ]
    (processed,) = [line for line in lines if line["event"] == "transfer.processed"]
    assert processed["request_id"] == sent.headers["x-request-id"]


async def test_a_worker_goes_on_when_nobody_reads_its_log_any_more(
    settings: Settings, worker: subprocess.Popen[str], owner: asyncpg.Connection
) -> None:
    assert worker.stdout is not None
    said = ""
    while "worker.started" not in said:
        line = worker.stdout.readline()
        assert line, f"ended at its start: {said}"
        said += line
    worker.stdout.close()
    body = {"source_account": "a", "destination_account": "b", "amount": 1, "currency": "EUR"}
    async with serving(settings, transaction_processing_delay_seconds=0) as client:
        for number in range(3):
            named = body | {"transaction_id": f"txn_{number}"}
            assert (await client.post("/v1/webhooks/transactions", json=named)).status_code == 202
            await drained(owner, seconds=20)
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0


@pytest.mark.usefixtures("given_up")
def test_dead_letters_are_listed_and_shown(environment: dict[str, str]) -> None:
    listed = letters(environment, "list", "--reason", "exhausted").stdout
    assert listed.count("the bank is closed") == LETTERS
    (newest, *_) = re.findall(r"^(\S+)  open$", listed, re.MULTILINE)
    assert "  body {}" in letters(environment, "show", newest).stdout
    assert "raise --limit" in letters(environment, "list", "--limit", "1").stdout
    assert letters(environment, "list", "--consumer", "nobody").stdout == "no dead letters\n"
    shown = json.loads(letters(environment, "show", newest, "--json").stdout)["letter"]
    assert (shown["id"], shown["attempts"], shown["resolved_at"]) == (newest, 1, None)


@pytest.mark.usefixtures("given_up")
async def test_dead_letters_are_replayed_and_discarded(
    environment: dict[str, str], owner: asyncpg.Connection
) -> None:
    again = ("replay", "--type", "thing.happened", "--note", "open again")
    assert letters(environment, *again, "--dry-run").stdout == f"{LETTERS} would be replayed\n"
    assert await owner.fetchval("SELECT count(*) FROM outbox_queue") == 0
    first = json.loads(letters(environment, "list", "--json").stdout)[0]["id"]
    discarded = letters(environment, "discard", first, "--note", "test data", "--json").stdout
    assert json.loads(discarded) == {"matched": 1, "resolved": 1, "dry_run": False}
    assert letters(environment, *again).stdout == f"{LETTERS - 1} replayed\n"
    assert await owner.fetchval("SELECT count(*) FROM outbox_queue") == LETTERS - 1
    assert letters(environment, "list").stdout == "no dead letters\n"
    resolved = letters(environment, "list", "--resolved").stdout
    assert resolved.count("replayed by cli:") == LETTERS - 1
    assert resolved.count("note: test data") == 1


@pytest.mark.usefixtures("given_up")
async def test_letters_that_somebody_holds_are_told_of_in_a_sentence(
    environment: dict[str, str], owner: asyncpg.Connection
) -> None:
    name = await owner.fetchval("SELECT current_database()")
    await owner.execute(f"ALTER DATABASE {name} SET lock_timeout = '200ms'")
    try:
        async with owner.transaction():
            await owner.execute("SELECT FROM dead_letters FOR UPDATE")
            said = told(letters(environment, "discard", "--note", "why", "--all"))
    finally:
        await owner.execute(f"ALTER DATABASE {name} RESET lock_timeout")
    assert "the database refused: canceling statement due to lock timeout" in said


@pytest.mark.usefixtures("given_up")
def test_who_means_all_must_say_so(environment: dict[str, str]) -> None:
    assert "or --all" in told(letters(environment, "discard", "--note", "why"))
    everything = letters(environment, "discard", "--note", "why", "--all").stdout
    assert everything == f"{LETTERS} discarded\n"
    gone = "00000000-0000-7000-8000-000000000000"
    assert "there is no dead letter" in told(letters(environment, "show", gone))


async def test_a_worker_whose_loop_is_stuck_says_so_on_its_page(
    metrics_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulse = Pulse()
    metrics.serve("127.0.0.1", metrics_port, pulse.is_felt)

    async def status() -> int:
        return (await asyncio.to_thread(get, metrics_port, "/metrics"))[0]

    assert await status() == 200  # it has not begun
    beating = asyncio.create_task(pulse.go_on())
    await asyncio.sleep(0)
    monkeypatch.setattr(worker_command, "STUCK_SECONDS", 60)
    assert await status() == 200
    monkeypatch.setattr(worker_command, "STUCK_SECONDS", 0)
    assert await status() == 503
    beating.cancel()
