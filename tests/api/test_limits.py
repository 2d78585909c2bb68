"""A limited request over HTTP: who is limited, and what the answer says."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from tests.api.steps import problem
from tests.conftest import client_of

from picopay.access import guards
from picopay.access.limits import Limits
from picopay.access.model import Rule
from picopay.app import create_app
from picopay.infra.problems import HEADERS, documented
from picopay.infra.settings import Settings

PER_ADDRESS = Rule("per-address", 2, 60)


async def limited(request: Request) -> Response:
    limits: Limits = request.app.state.limits
    await limits.take([(PER_ADDRESS, guards.client_address(request))])
    return PlainTextResponse("ok")


async def opened(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    app: FastAPI = create_app(settings)
    app.router.add_route("/limited", limited)
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield client


@pytest.fixture
async def direct(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """An application that is called without a proxy."""
    async for client in opened(settings):
        yield client


@pytest.fixture
async def proxied(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """One whose callers are trusted proxies; the tests call from 127.0.0.1."""
    async for client in opened(settings.model_copy(update={"trusted_proxies": "127.0.0.0/8"})):
        yield client


async def statuses(client: httpx2.AsyncClient, *forwarded_for: str) -> list[int]:
    return [
        (await client.get("/limited", headers={"X-Forwarded-For": line})).status_code
        for line in forwarded_for
    ]


async def test_the_answer_tells_which_limit_was_reached_and_how_long_to_wait(
    direct: httpx2.AsyncClient,
) -> None:
    for _ in range(2):
        assert (await direct.get("/limited")).status_code == 200

    answer = await direct.get("/limited")

    told = problem(answer, 429, "rate-limited")
    seconds = told["retry_after_seconds"]
    assert 55 < seconds <= 60
    assert answer.headers["retry-after"] == str(seconds)
    assert answer.headers["ratelimit"] == f'"per-address";r=0;t={seconds}'
    assert answer.headers["ratelimit-policy"] == '"per-address";q=2;w=60'
    assert {name: told[name] for name in ("rule", "limit", "window_seconds", "remaining")} == {
        "rule": "per-address",
        "limit": 2,
        "window_seconds": 60,
        "remaining": 0,
    }


async def test_without_trusted_proxies_a_header_makes_nobody_somebody_else(
    direct: httpx2.AsyncClient,
) -> None:
    lines = [f"203.0.113.{number}" for number in range(4)]
    assert await statuses(direct, *lines) == [200, 200, 429, 429]


async def test_behind_a_trusted_proxy_each_client_has_a_limit(proxied: httpx2.AsyncClient) -> None:
    assert await statuses(proxied, *["203.0.113.1"] * 3, "203.0.113.2") == [200, 200, 429, 200]
    forged = [f"198.51.100.{number}, 203.0.113.3" for number in range(4)]
    assert await statuses(proxied, *forged) == [200, 200, 429, 429]


async def test_addresses_of_one_ipv6_site_are_one_client(proxied: httpx2.AsyncClient) -> None:
    lines = [f"2001:db8:1:2::{number:x}" for number in range(4)]
    assert await statuses(proxied, *lines) == [200, 200, 429, 429]
    assert await statuses(proxied, "2001:db8:1:3::1") == [200]


def test_a_route_that_may_limit_documents_the_headers() -> None:
    shown = documented("rate-limited")[429]["headers"]
    assert set(shown) == {"Retry-After", "RateLimit", "RateLimit-Policy"}
    assert set(shown) <= set(HEADERS)
