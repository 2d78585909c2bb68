"""Charging through the application in this process."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx2
from tests.races.load import Wish


async def new_user(client: httpx2.AsyncClient, user_id: int, deposit: int) -> int:
    assert (await client.post("/v1/users", json={"id": user_id})).status_code == 201
    money = {"amount": deposit, "currency": "USD"}
    made = await client.post(f"/v1/users/{user_id}/deposits", json=money)
    assert made.status_code == 201
    return user_id


async def charge(client: httpx2.AsyncClient, wish: Wish) -> httpx2.Response:
    headers = {"Idempotency-Key": wish.key}
    return await client.post("/charge", json=wish.body(), headers=headers)


async def charge_all(client: httpx2.AsyncClient, wishes: Sequence[Wish]) -> list[httpx2.Response]:
    """All at once."""
    return list(await asyncio.gather(*(charge(client, wish) for wish in wishes)))


async def batch(client: httpx2.AsyncClient, wishes: Sequence[Wish]) -> list[dict[str, Any]]:
    items = [{**wish.body(), "idempotency_key": wish.key} for wish in wishes]
    answer = await client.post("/v1/charges/batch", json={"charges": items})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


async def balance_text(client: httpx2.AsyncClient, user_id: int) -> bytes:
    """The user as answered: money keeps its digits only in the bytes."""
    return (await client.get(f"/v1/users/{user_id}")).content
