"""The README, run word by word, and what DEPLOY.md says of a database of one's own."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api.test_openapi import operations
from tests.documents.pages import ROOT, fenced
from tests.processes import free_port

from picopay.embedded.servers import acquire

README = (ROOT / "README.md").read_text()
DEPLOY = (ROOT / "DEPLOY.md").read_text()
REFUNDS = (ROOT / "docs/guides/refunds.md").read_text()
ORDERS = (ROOT / "docs/guides/orders.md").read_text()
START_SECONDS_MAX = 90
LINES_MAX = 150


def _here(commands: str, port: int, data_dir: Path) -> str:
    """The README's commands, for this test's port and data directory."""
    return commands.replace("localhost:8000", f"127.0.0.1:{port}").replace(
        ".picopay/", f"{data_dir}/"
    )


def _shell(commands: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_names_every_operation_and_stays_short() -> None:
    _, _, below = README.partition("## Endpoints\n")
    table, _, _ = below.partition("\n## ")
    named = re.findall(r"`([A-Z]+ /[^`]*)`", table)
    assert sorted(named) == sorted(name for name, _ in operations())
    assert len(README.splitlines()) <= LINES_MAX


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """`make run`, the README's first command, on a port and a data directory of the test's own."""
    (make_run,) = [block for block in fenced("bash", README) if "make run" in block]
    port, data_dir = free_port(), tmp_path / "data"
    with (tmp_path / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [*make_run.split(), f"ARGS=--port {port} --data-dir {data_dir}"],
            cwd=ROOT,
            env=os.environ | {"TRANSACTION_PROCESSING_DELAY_SECONDS": "5"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_for(port)
            yield port, data_dir
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the server did not start")


@pytest.mark.kill
def test_the_first_sixty_seconds(started: tuple[int, Path]) -> None:
    port, data_dir = started
    environment = {"PICOPAY_DATA_DIR": str(data_dir)}
    curl, webhook = [block for block in fenced("bash", README) if block.startswith("curl")]
    (refund,) = fenced("bash", REFUNDS)
    (shown,) = [json.loads(block) for block in fenced("json", README)]

    first = _shell(_here(curl, port, data_dir), environment)
    again = _shell(_here(curl, port, data_dir), environment)

    assert first.returncode == 0, first.stderr
    answer = json.loads(first.stdout)
    shown_id, shown["transaction"]["id"] = shown["transaction"]["id"], answer["transaction"]["id"]
    assert answer == shown
    assert again.stdout == first.stdout
    told = _shell(_here(webhook, port, data_dir), environment)
    assert '{"transaction_id":"txn_1","status":"accepted"}' in told.stdout, told.stderr
    assert '"amount":1500.00,"currency":"INR","status":"PROCESSING"' in told.stdout

    (proof,) = [block for block in fenced("bash", README) if "ledger check" in block]
    proof = proof.replace("picopay demo", f"picopay demo --url http://127.0.0.1:{port}")
    ran = _shell(proof, environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "user 1: 900.00 USD" in ran.stdout
    assert "The ledger is clean." in ran.stdout

    assert shown_id in refund
    refund = refund.replace(shown_id, answer["transaction"]["id"])
    given_back = _shell(_here(refund, port, data_dir), environment)
    assert '"amount":25.00,"currency":"USD"' in given_back.stdout, given_back.stderr

    assert "scripts/seed_data.py" in README
    seeded = _shell(".venv/bin/python scripts/seed_data.py", environment)
    assert seeded.returncode == 0, seeded.stderr
    (placing,) = [block for block in fenced("bash", ORDERS) if "/products" in block]
    products, order, events = re.split(r"\n(?=curl)", _here(placing, port, data_dir).strip())
    product = json.loads(_shell(products, environment).stdout)[0]["id"]
    placed = json.loads(_shell(order.replace("PRODUCT", product), environment).stdout)
    assert placed["status"] == "reserved"
    timeline = json.loads(_shell(events.replace("ORDER", placed["id"]), environment).stdout)
    assert timeline["data"][0]["event"] == "order.placed"


@pytest.mark.kill
def test_against_a_database_of_ones_own(tmp_path: Path) -> None:
    (commands,) = [block for block in fenced("bash", DEPLOY) if "picopay serve" in block]
    *preparing, serving = commands.strip().splitlines()
    port = free_port()
    with acquire(tmp_path / "data", ephemeral=True) as lease:
        exports = "\n".join(preparing)
        exports = re.sub(r"postgresql://\S+", lease.servers.database_url, exports)
        exports = re.sub(r"redis://\S+", lease.servers.redis_url, exports)
        serving = re.sub(r"--host \S+", "--host 127.0.0.1", serving) + f" --port {port}"
        until_up = f"until curl -sf http://127.0.0.1:{port}/readyz; do sleep 0.2; done"
        ran = _shell(f"{exports}\n{serving} &\n{until_up}\nkill %1\nwait %1", {})
    assert '"status":"healthy"' in ran.stdout, ran.stdout + ran.stderr
    assert "production" in ran.stdout
