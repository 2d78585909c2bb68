"""For those who run the system: health, readiness, metrics, documentation pages."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx2
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs
from tests.api.steps import a_key, a_user, charge, counted, keyed, problem, samples

from picopay.access.model import Scope
from picopay.infra.db import Db
from picopay.infra.problems import PROBLEMS
from picopay.infra.redis import Fast

CLOSED: Final = "postgresql://nobody:hunter2@127.0.0.1:1/nothing"
NO_AUTH: Final = {"X-API-Key": ""}


async def test_the_root_tells_that_it_is_healthy_and_the_time(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/", headers=NO_AUTH)
    assert answer.status_code == 200
    assert list(answer.json()) == ["status", "current_time"]
    assert answer.json()["status"] == "HEALTHY"
    assert answer.json()["current_time"].endswith("Z")
    told = datetime.fromisoformat(answer.json()["current_time"])
    assert abs(datetime.now(UTC) - told) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/health", b'{"status":"healthy"}'),
        ("/livez", b'{"status":"alive"}'),
        ("/healthz", b'{"status":"healthy","database":"connected","redis":"connected"}'),
        ("/readyz", b'{"status":"healthy","database":"connected","redis":"connected"}'),
    ],
)
async def test_all_is_well(client: httpx2.AsyncClient, path: str, body: bytes) -> None:
    answer = await client.get(path, headers=NO_AUTH)
    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/", "/health", "/livez", "/healthz", "/readyz"])
async def test_head_is_answered_as_get(client: httpx2.AsyncClient, path: str) -> None:
    head, get = await client.head(path, headers=NO_AUTH), await client.get(path, headers=NO_AUTH)
    assert head.status_code == get.status_code == 200
    varying = {"x-request-id", "content-length" if path == "/" else ""}  # of the time of day
    for name in set(get.headers) - varying:
        assert head.headers[name] == get.headers[name]


async def test_without_postgresql_it_is_alive_but_not_ready(
    client: httpx2.AsyncClient, app: FastAPI
) -> None:
    was, app.state.reserved = app.state.reserved, Db(CLOSED)

    for path in ("/healthz", "/readyz"):
        answer = await client.get(path)
        assert answer.status_code == 503
        assert answer.json() == {
            "status": "unhealthy",
            "database": "disconnected",
            "redis": "connected",
        }
        assert "hunter2" not in answer.text
        assert (await client.head(path)).status_code == 503
    for path in ("/", "/health", "/livez"):
        assert (await client.get(path)).status_code == 200
    await app.state.reserved.close()
    app.state.reserved = was


async def test_without_redis_it_is_ready_but_degraded(
    client: httpx2.AsyncClient, app: FastAPI
) -> None:
    was = app.state.redis
    app.state.redis = gone = Fast("redis://127.0.0.1:1/0", budget_seconds=0.05)
    for path in ("/healthz", "/readyz"):
        for _ in range(2):  # the second time the breaker is open
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.json() == {
                "status": "degraded",
                "database": "connected",
                "redis": "disconnected",
            }
    await gone.close()
    app.state.redis = was


async def test_running_without_redis_on_purpose_is_healthy(
    client: httpx2.AsyncClient, app: FastAPI
) -> None:
    was, app.state.redis = app.state.redis, None
    answer = await client.get("/healthz")
    app.state.redis = was
    assert answer.status_code == 200
    assert answer.json()["status"] == "healthy"
    assert answer.json()["redis"] == "not configured"


async def test_metrics_come_in_the_text_format(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/metrics", headers=NO_AUTH)
    assert answer.status_code == 200
    assert re.fullmatch(r"text/plain; version=\S+; charset=utf-8", answer.headers["content-type"])
    assert "# TYPE charge_requests_total counter" in answer.text
    assert "# TYPE charge_request_latency_seconds histogram" in answer.text
    assert "_created" not in answer.text


async def test_the_four_statuses_are_there_from_the_start(client: httpx2.AsyncClient) -> None:
    wanted = {"success", "idempotent_hit", "insufficient_balance", "failed"}
    assert set(await counted(client)) == wanted


async def test_latency_has_the_contracts_buckets_and_finer_ones(
    client: httpx2.AsyncClient,
) -> None:
    prefix = 'charge_request_latency_seconds_bucket{le="'
    names = [name for name in await samples(client) if name.startswith(prefix)]
    bounds = {float(name.removeprefix(prefix).removesuffix('"}')) for name in names}
    assert bounds >= {0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10}
    assert len([bound for bound in bounds if bound < 0.01]) >= 3


async def test_no_metric_has_a_user_a_key_or_a_url_as_its_label(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client, 987_654_321)
    await charge(client, user_id=987_654_321, headers=keyed("0198c0de-0000-7000-8000-0000feedbeef"))
    text = (await client.get("/metrics")).text
    assert "987654321" not in text
    assert "feedbeef" not in text
    assert "/charge" not in re.sub(r"# HELP .*", "", text)


@pytest.mark.parametrize(
    ("amount", "user_id", "key", "status", "counter"),
    [
        (1, 1, None, 200, "success"),
        (1, 1, "fresh", 200, "success"),
        (5, 1, "known", 200, "idempotent_hit"),
        (10**6, 1, None, 400, "insufficient_balance"),
        (6, 1, "known", 422, "failed"),
        (1, 404, None, 404, "failed"),
        (0, 1, None, 422, "failed"),
        (1, 1, "broken", 400, "failed"),
    ],
)
async def test_each_charge_request_is_counted_once_by_its_answer(  # noqa: PLR0913, PLR0917
    client: httpx2.AsyncClient,
    amount: int,
    user_id: int,
    key: str | None,
    status: int,
    counter: str,
) -> None:
    keys = {"known": "1" * 32, "fresh": "2" * 32, "broken": "x"}
    await a_user(client)
    await charge(client, 5, headers=keyed(keys["known"]))
    before, timed = await counted(client), await latency_count(client)

    headers = None if key is None else keyed(keys[key])
    answer = await charge(client, amount, user_id=user_id, headers=headers)

    assert answer.status_code == status
    assert await counted(client) == before | {counter: before[counter] + 1}
    assert await latency_count(client) == timed + 1


async def latency_count(client: httpx2.AsyncClient) -> float:
    return (await samples(client))["charge_request_latency_seconds_count"]


async def test_failed_counts_what_never_reaches_the_ledger_too(
    client: httpx2.AsyncClient, app: FastAPI, db: Db
) -> None:
    no_scope = await a_key(db, scopes=[Scope.USERS])
    body = {"user_id": 1, "amount": 1, "currency": "USD"}
    before, timed = await counted(client), await latency_count(client)

    answers = [
        await client.post("/charge", json=body, headers=NO_AUTH),
        await client.post("/charge", json=body, headers=no_scope),
        await client.post("/charge", content="not json"),
        await client.post("/charge", content="{}"),
        await client.post("/charge", content=b"x" * 70_000),
    ]
    was, app.state.batcher = app.state.batcher, None
    with capture_logs():
        answers.append(await client.post("/charge", json=body))
    app.state.batcher = was

    statuses = [answer.status_code for answer in answers]
    assert statuses == [401, 403, 422, 422, 413, 500]
    assert await counted(client) == before | {"failed": before["failed"] + 6}
    assert await latency_count(client) == timed + 6


async def test_every_problem_type_has_a_page(client: httpx2.AsyncClient) -> None:
    for code, (status, title) in PROBLEMS.items():
        answer = await client.get(f"/problems/{code}", headers=NO_AUTH)
        assert answer.json() == {"code": code, "title": title, "status": status}
    problem(await client.get("/problems/made-up"), 404, "not-found")


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_documentation_pages_need_nothing_from_elsewhere(
    client: httpx2.AsyncClient, path: str
) -> None:
    page = await client.get(path, headers=NO_AUTH)

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "//" not in page.text.replace("<!--", "")
    assert not re.search(r"<script(?![^>]*\ssrc=)", page.text), "an inline script"
    assert not re.search(r"\son[a-z]+=|javascript:", page.text)
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert linked
    for link in linked:
        asset = await client.get(link, headers=NO_AUTH)
        assert asset.status_code == 200
        kind = "css" if link.endswith(".css") else "javascript"
        assert kind in asset.headers["content-type"]
        assert len(asset.content) > 100


async def test_redoc_asks_no_other_host_for_its_makers_logo(client: httpx2.AsyncClient) -> None:
    script = await client.get("/docs/vendor/redoc.standalone.js")
    assert len(script.content) > 500_000
    assert "cdn." not in script.text


async def test_documentation_shows_the_document(client: httpx2.AsyncClient) -> None:
    assert "/openapi.json" in (await client.get("/docs/assets/docs.js")).text
    assert "/openapi.json" in (await client.get("/redoc")).text
    answer = await client.get("/openapi.json", headers=NO_AUTH)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path",
    [
        "/docs/vendor/..%2f..%2fapp.py",
        "/docs/assets/..%2fapp.py",
        "/docs/assets/%2e%2e/app.py",
        "/docs/vendor/%2fetc%2fpasswd",
        "/docs/vendor",
        "/docs/vendor/",
        "/docs/vendor/%00",
    ],
)
async def test_no_file_but_our_assets_is_served(client: httpx2.AsyncClient, path: str) -> None:
    problem(await client.get(path), 404, "not-found")
