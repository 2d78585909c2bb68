"""What a shop's customers, its admin and its payment provider do."""

import json
from typing import Any, Final
from uuid import uuid4

import httpx2

from picopay.kernel import signing

ADMIN: Final = {"X-Admin-Secret": "an-admin-secret-for-tests"}
CALLBACK_SECRET: Final = "a-callback-secret-for-tests"
EMAIL: Final = "ada@example.com"


async def a_product(client: httpx2.AsyncClient, **changes: object) -> str:
    body = {"name": "Mouse", "price": "25.00", "stock": 10, "is_active": True} | changes
    answer = await client.post("/admin/products", json=body, headers=ADMIN)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def stock_of(client: httpx2.AsyncClient, product_id: str) -> int:
    return (await client.get(f"/admin/products/{product_id}", headers=ADMIN)).json()["stock"]


def wanted(*lines: tuple[str, int], email: str | None = None) -> dict[str, object]:
    """An order's body; each has an e-mail of its own, unless it is given."""
    items = [{"product_id": product, "quantity": quantity} for product, quantity in lines]
    return {"user_email": email or f"{uuid4().hex}@example.com", "items": items}


async def order(
    client: httpx2.AsyncClient, body: dict[str, object], key: str | None = None
) -> httpx2.Response:
    headers = {"Idempotency-Key": key or str(uuid4())}
    return await client.post("/orders", json=body, headers=headers)


async def placed(client: httpx2.AsyncClient, *lines: tuple[str, int]) -> dict[str, Any]:
    answer = await order(client, wanted(*lines))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def call_back(
    client: httpx2.AsyncClient,
    order_id: str,
    status: str,
    payment_id: str = "pay_1",
    secret: str = CALLBACK_SECRET,
) -> httpx2.Response:
    body = json.dumps({"payment_id": payment_id, "order_id": order_id, "status": status}).encode()
    headers = {"Content-Type": "application/json"} | signing.sign_hex(body, secret)
    return await client.post("/payments/callback", content=body, headers=headers)


async def status_of(client: httpx2.AsyncClient, order_id: str) -> str:
    return (await client.get(f"/orders/{order_id}")).json()["status"]


async def story_of(client: httpx2.AsyncClient, order_id: str) -> list[str]:
    entries = (await client.get(f"/orders/{order_id}/events")).json()["data"]
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    return [entry["event"] for entry in entries]
