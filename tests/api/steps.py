"""What the HTTP tests do again and again: users with money, charges, keys, and how to read them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import uuid4

import asyncpg
import httpx2

from picopay.access import service as access
from picopay.access.model import KeyWanted, Scope
from picopay.infra.db import Db

PROBLEM: Final = "application/problem+json"
SHAPE: Final = ["type", "title", "status", "detail", "code", "request_id"]
EVERY_SCOPE: Final = frozenset(Scope)


async def a_user(
    client: httpx2.AsyncClient, user_id: int = 1, amount: str = "1000", currency: str = "USD"
) -> int:
    """A user with that much money, or none for "0"."""
    made = await client.post("/v1/users", json={"id": user_id})
    assert made.status_code in (200, 201)
    if amount != "0":
        await deposit(client, user_id, amount, currency)
    return user_id


async def deposit(
    client: httpx2.AsyncClient, user_id: int, amount: str, currency: str = "USD"
) -> None:
    body = {"amount": amount, "currency": currency}
    made = await client.post(f"/v1/users/{user_id}/deposits", json=body)
    assert made.status_code == 201, made.text


async def charge(
    client: httpx2.AsyncClient,
    amount: float | str = 100,
    currency: str = "USD",
    *,
    user_id: int = 1,
    headers: Mapping[str, str] | None = None,
) -> httpx2.Response:
    body = {"user_id": user_id, "amount": amount, "currency": currency}
    return await client.post("/charge", json=body, headers=dict(headers or {}))


def keyed(key: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": str(uuid4()) if key is None else key}


async def a_key(
    db: Db, merchant: str = "default", scopes: Iterable[Scope] = EVERY_SCOPE
) -> dict[str, str]:
    """The header of a new API key."""
    wanted = KeyWanted("test", merchant, frozenset(scopes), live=False)
    _, text = await access.create(db, wanted)
    return {"X-API-Key": text}


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document, if the answer is one of that status and code, in our one shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    document: dict[str, Any] = response.json()
    assert list(document)[: len(SHAPE)] == SHAPE
    assert document["type"] == f"/problems/{code}"
    assert document["status"] == status
    assert document["code"] == code
    assert document["request_id"] == response.headers["x-request-id"]
    return document


async def written(owner: asyncpg.Connection) -> tuple[int, int, int]:
    """How many charges, postings and idempotency keys the database holds."""
    row = await owner.fetchrow(
        "SELECT (SELECT count(*) FROM charges), (SELECT count(*) FROM postings),"
        " (SELECT count(*) FROM idempotency_keys)"
    )
    assert row is not None
    return row[0], row[1], row[2]


async def samples(client: httpx2.AsyncClient) -> dict[str, float]:
    """Every sample of /metrics by its full name, labels included."""
    page = await client.get("/metrics")
    assert page.status_code == 200
    lines = [line for line in page.text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def counted(client: httpx2.AsyncClient) -> dict[str, int]:
    """`charge_requests_total` by status."""
    prefix = 'charge_requests_total{status="'
    return {
        name.removeprefix(prefix).removesuffix('"}'): int(value)
        for name, value in (await samples(client)).items()
        if name.startswith(prefix)
    }


async def statement_pages(client: httpx2.AsyncClient, path: str) -> list[list[dict[str, object]]]:
    """Every page of two, with a charge made after each."""
    pages: list[list[dict[str, object]]] = []
    query: dict[str, str | int] = {"limit": 2}
    while True:
        shown = (await client.get(path, params=query)).json()
        pages.append(shown["data"])
        if not shown["has_more"]:
            return pages
        query["cursor"] = shown["next_cursor"]
        await charge(client, 1)
