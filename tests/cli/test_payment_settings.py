"""What `picopay serve` fills in for payment callbacks: the secret, and its own address."""

import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from tests.conftest import Stores
from tests.embedded.world import wait_until
from tests.forks import run_command
from tests.processes import API_KEY, Server, free_port, get, metric
from tests.receivers import receiving

QUICK = {"FAKE_PAYMENT_DELAY_SECONDS": "0", "LOG_LEVEL": "INFO"}


@pytest.fixture
def server(clean: Stores, tmp_path: Path) -> Iterator[Server]:
    """In development on a database of somebody else's, with a data directory not made yet."""
    external = {
        "DATABASE_URL": clean.database_url,
        "REDIS_URL": clean.redis_url,
        "PICOPAY_ENV": "development",
        "PICOPAY_DATA_DIR": str(tmp_path / "kept"),
    }
    server = Server(tmp_path / "data", environment=external | QUICK)
    yield server
    if server.is_running():
        server.stop()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=30) as client:
        yield client


async def test_a_missing_secret_is_generated_kept_and_never_logged(
    server: Server, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    path, secret = tmp_path / "kept" / "payment_webhook_secret", ""
    for _ in range(2):
        server.start({"FAKE_PAYMENT_ENABLED": "true"})
        secret = path.read_text().strip()
        async with receiving(secret) as receiver:
            body = {"order_id": "o", "amount": 1, "callback_url": f"{receiver.url}/elsewhere"}
            assert (await client.post("/_fake_payments", json=body)).status_code == 200
            await receiver.has(1)
        server.stop()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(secret) > 32
    said = server.log.read_text()
    assert str(path) in said
    assert secret not in said


async def test_what_has_no_use_for_a_secret_makes_none(server: Server, tmp_path: Path) -> None:
    server.start({"PAYMENT_PROVIDER": "wallet"})
    assert not (tmp_path / "kept").exists()
    assert get(server.port, "/_fake_payments/x")[0] == 404


async def test_without_the_fake_provider_nobody_waits_for_it(clean: Stores, tmp_path: Path) -> None:
    environment = {
        "DATABASE_URL": clean.database_url,
        "PICOPAY_ENV": "development",
        "PICOPAY_DATA_DIR": str(tmp_path),
        "PAYMENT_PROVIDER": "fake",
    }
    ran = run_command(["serve", "--port", str(free_port())], os.environ | environment, cwd=tmp_path)
    assert ran.returncode == 1
    assert "PAYMENT_PROVIDER is fake, but there is none" in ran.stderr


async def test_the_demo_tells_its_story_of_orders_that_are_paid_from_balances(
    server: Server, clean: Stores, tmp_path: Path
) -> None:
    own = {"ADMIN_SECRET": "one-secret-of-our-own", "TRANSACTION_PROCESSING_DELAY_SECONDS": "0"}
    server.start({"PAYMENT_PROVIDER": "wallet", "APP_API_KEY": API_KEY} | own)
    environment = {"DATABASE_URL": clean.database_url, "APP_API_KEY": API_KEY} | own
    ran = run_command(["demo", "--url", server.url], os.environ | environment, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "order.placed → payment.succeeded → order.paid" in ran.stdout


async def test_a_placeholder_is_warned_of(server: Server) -> None:
    server.start({"FAKE_PAYMENT_ENABLED": "true", "PAYMENT_WEBHOOK_SECRET": "secret"})
    assert "PAYMENT_WEBHOOK_SECRET is a well-known placeholder" in server.log.read_text()


async def test_callbacks_come_to_the_servers_own_address(
    server: Server, client: httpx2.AsyncClient
) -> None:
    """Where nobody knows the order."""
    server.start({"FAKE_PAYMENT_ENABLED": "true"})
    body = {"order_id": str(uuid4()), "amount": 1}
    assert (await client.post("/_fake_payments", json=body)).status_code == 200
    wait_until(lambda: metric(server.port, 'http_requests_total{method="POST",status="404"}') >= 1)


async def test_callbacks_come_to_another_address_that_is_set(
    server: Server, client: httpx2.AsyncClient
) -> None:
    secret = "whsec_of-our-own"
    given = {"FAKE_PAYMENT_ENABLED": "true", "PAYMENT_WEBHOOK_SECRET": secret}
    async with receiving(secret) as receiver:
        server.start(given | {"PICOPAY_URL": f"{receiver.url}/"})
        body = {"order_id": "o", "amount": 1}
        assert (await client.post("/_fake_payments", json=body)).status_code == 200
        await receiver.has(1)
    assert receiver.received[0].told["order_id"] == "o"
