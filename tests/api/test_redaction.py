"""No secret and nothing of a body in what is written: logs at DEBUG, metrics, problems, commands.

Each secret is a mark of its own, so that whatever holds one, in any form, is found.
"""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2
import pytest
from tests.conftest import Stores
from tests.embedded.world import wait_until
from tests.forks import run_command
from tests.processes import Server, clean_environment

pytestmark = pytest.mark.xdist_group("server")

API_KEY: Final = "mark-of-the-api-key-1f7c"
SECRETS: Final = {
    "APP_API_KEY": API_KEY,
    "ADMIN_SECRET": "mark-of-the-admin-secret-2a9e",
    "TRANSACTION_WEBHOOK_SECRET": "mark-of-the-transaction-secret-3b5d",
    "PAYMENT_WEBHOOK_SECRET": "mark-of-the-payment-secret-4c1a",
    "METRICS_TOKEN": "mark-of-the-metrics-token-5d8f",
    "REDIS_PASSWORD": "mark-of-the-redis-password-6e2b",
}
# What strangers send, in each place where something can be sent.
SENT: Final = {
    "X-API-Key": "pk_live_mark-of-a-wrong-key-7f3c",
    "X-Admin-Secret": "mark-of-a-wrong-admin-secret-8a4d",
    "X-Signature": "mark-of-a-signature-9b6e",
    "Authorization": "Bearer mark-of-a-bearer-0c7f",
    "Cookie": "session=mark-of-a-cookie-1d8a",
    "Idempotency-Key": "mark-of-a-wrong-idempotency-key-2e9b",
}
IN_BODY: Final = "mark-of-a-body-3f0c"
IN_QUERY: Final = "mark-of-a-query-4a1d"


@pytest.fixture(scope="module")
async def marked(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """`picopay serve` at DEBUG, with its worker and a Redis that refuses its password."""
    redis_address = stores.redis_url.split("@")[-1].removeprefix("redis://").split("/")[0]
    host, _, port = redis_address.partition(":")
    server = Server(
        tmp_path_factory.mktemp("marked") / "data",
        environment={
            **SECRETS,
            "DATABASE_URL": stores.database_url,
            "REDIS_HOST": host,
            "REDIS_PORT": port,
            "PICOPAY_ENV": "development",
            "LOG_LEVEL": "DEBUG",
            "FAKE_PAYMENT_ENABLED": "true",
            "FAKE_PAYMENT_DELAY_SECONDS": "0",
            "OUTBOX_MAX_ATTEMPTS": "1",
        },
    )
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture
async def stranger(clean: Stores, marked: Server) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=marked.url, timeout=30) as client:
        yield client


BODIES: Final[dict[str, Any]] = {
    "/charge": {"user_id": IN_BODY, "amount": IN_BODY, "currency": IN_BODY[:3], "x": IN_BODY},
    "/v1/charges/batch": {"charges": [{"user_id": IN_BODY}, IN_BODY]},
    "/v1/users": {"id": IN_BODY},
    "/v1/users/1/deposits": {"amount": IN_BODY, "currency": "USD"},
    "/v1/webhooks/transactions": {"transaction_id": IN_BODY},
    "/orders": {"user_email": IN_BODY, "items": IN_BODY},
    "/payments/callback": {"payment_id": IN_BODY, "order_id": IN_BODY, "status": IN_BODY},
    "/admin/products": {"name": IN_BODY, "price": IN_BODY},
    "/_fake_payments": {"order_id": IN_BODY + " ", "amount": IN_BODY},
    "/nothing": {"x": IN_BODY},
}


async def refused_everywhere(client: httpx2.AsyncClient) -> str:
    """All that is answered to strangers, and to us when we send what is wrong."""
    known = {"X-API-Key": API_KEY, "X-Admin-Secret": SECRETS["ADMIN_SECRET"]}
    answered: list[str] = []
    for path, body in BODIES.items():
        for headers in (SENT, SENT | known, {**SENT, **known, "X-Request-ID": "x"}):
            for content in (json.dumps(body), json.dumps(body)[:-2], f'"{IN_BODY}'):
                answer = await client.post(
                    path, content=content, headers=headers, params={"token": IN_QUERY}
                )
                assert answer.status_code < 500, (path, answer.text)
                answered.append(answer.text + repr(answer.headers.multi_items()))
    return "".join(answered)


async def broken_inside(client: httpx2.AsyncClient, owner: asyncpg.Connection) -> str:
    """What is answered when the database cannot do what it is asked: a table is not there."""
    key = {"X-API-Key": API_KEY, "X-Admin-Secret": SECRETS["ADMIN_SECRET"]}
    answered: list[str] = []
    for table, path in (
        ("products", f"/products?q={IN_QUERY}"),
        ("orders", f"/orders?user_email={IN_QUERY}"),
        ("transfers", f"/v1/transactions?account={IN_QUERY}"),
        ("charges", "/v1/charges"),
        ("fake_payments", "/_fake_payments/0198c0de-0000-7000-8000-00000000abcd"),
    ):
        await owner.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
        try:
            answer = await client.get(path, headers=SENT | key)
            assert answer.status_code == 500, path
            answered.append(answer.text)
        finally:
            await owner.execute(f"ALTER TABLE {table}_away RENAME TO {table}")
    return "".join(answered)


async def failed_in_the_background(client: httpx2.AsyncClient, server: Server) -> None:
    """A callback to where nobody listens, with a secret in its URL."""
    url = f"http://user.invalid:1/hook?token={IN_QUERY}"
    body = {"order_id": "o1", "amount": 1, "callback_url": url}
    assert (await client.post("/_fake_payments", json=body)).status_code == 200
    await asyncio.to_thread(wait_until, lambda: "outbox.dead_letter" in server.log.read_text())


def marks(*but: str) -> dict[str, str]:
    """What must not be found: each as it is, and as base 64 and hex would show it."""
    told = {**SECRETS, **SENT, "body": IN_BODY, "query": IN_QUERY}
    forms = {
        name: text.removeprefix("pk_live_").removeprefix("Bearer ").removeprefix("session=")
        for name, text in told.items()
        if name not in but
    }
    encoded = {
        f"{name}, base 64": b64encode(text.encode()).decode() for name, text in forms.items()
    }
    return forms | encoded | {f"{name}, hex": text.encode().hex() for name, text in forms.items()}


def found(text: str, wanted: Mapping[str, str]) -> list[str]:
    return [name for name, mark in wanted.items() if mark in text]


def password_of(stores: Stores) -> str:
    return stores.database_url.partition("://")[2].partition("@")[0].partition(":")[2]


async def test_no_secret_and_no_body_is_written_or_told(
    stranger: httpx2.AsyncClient, marked: Server, stores: Stores, owner: asyncpg.Connection
) -> None:
    told = await refused_everywhere(stranger)
    told += await broken_inside(stranger, owner)
    told += (await stranger.get("/healthz")).text
    await failed_in_the_background(stranger, marked)
    token = {"Authorization": f"Bearer {SECRETS['METRICS_TOKEN']}"}
    metrics = (await stranger.get("/metrics", headers=token)).text
    log = marked.log.read_text()

    for event in ("api_key.rejected", "admin_secret.rejected", "webhook.signature_rejected"):
        assert event in log, "nothing was provoked, so nothing is proved"
    assert log.count("http.unhandled") == 5
    assert "Traceback" in log
    assert "redis.unavailable" in log
    assert password_of(stores)
    wanted = {**marks(), "database password": password_of(stores)}
    assert found(log, wanted) == []
    assert found(metrics, wanted) == []
    assert found(told, wanted) == []


def test_a_mark_would_be_found_in_any_form() -> None:
    assert found(f"x{API_KEY}", marks()) == ["APP_API_KEY"]
    assert found(b64encode(API_KEY.encode()).decode(), marks()) == ["APP_API_KEY, base 64"]
    assert found(API_KEY.encode().hex(), marks()) == ["APP_API_KEY, hex"]


@pytest.mark.parametrize(
    "changed",
    [
        {"DATABASE_URL": "postgresql://u:mark-of-a-password@127.0.0.1:1/x"},
        {"DATABASE_URL": "mysql://u:mark-of-a-password@127.0.0.1:1/x"},
        {"DATABASE_URL": "postgresql://u:mark-of-a-password@127.0.0.1:x/x"},
        {"REDIS_URL": "http://u:mark-of-a-password@127.0.0.1:1/0"},
        {"PICOPAY_URL": "http://u:mark-of-a-password@127.0.0.1:1/"},
        {"CORS_ORIGINS": "https://u:mark-of-a-password@shop.example"},
        {"LOG_LEVEL": "mark-of-a-password"},
    ],
    ids=repr,
)
def test_a_command_that_cannot_start_tells_no_secret(
    tmp_path: Path, changed: dict[str, str]
) -> None:
    environment = {**clean_environment(), **SECRETS, "LOG_LEVEL": "DEBUG", **changed}
    ran = run_command(["serve", "--port", "0"], environment, cwd=tmp_path)
    assert ran.returncode == 1, ran.stdout
    told = ran.stdout + ran.stderr
    assert "Traceback" not in told
    assert found(told, marks()) == []
    assert "mark-of-a-password" not in told


def test_help_shows_no_setting(tmp_path: Path) -> None:
    for command in (["--help"], ["serve", "--help"], ["keys", "create", "--help"]):
        ran = run_command(command, {**clean_environment(), **SECRETS}, cwd=tmp_path)
        assert ran.returncode == 0
        assert found(ran.stdout + ran.stderr, marks()) == []
