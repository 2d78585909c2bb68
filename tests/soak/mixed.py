"""Customers who do a bit of everything, steadily, and repeat what was not answered."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Final
from uuid import uuid4

from tests.processes import ADMIN_SECRET
from tests.races.load import Caller, Wish

STOCK: Final = 10_000_000
_ACCOUNTS: Final = 8


@dataclass
class Mixed:
    """Each round: two charges, a replay of each, a refund, an order, a webhook."""

    by: Caller
    product: str
    requests: int = 0

    async def round(self, user: int, number: int) -> None:
        for _ in range(2):
            wish = Wish.of(user)
            charged = await self._post("/charge", wish.body(), wish.key, 200)
            again = await self._post("/charge", wish.body(), wish.key, 200)
            assert charged["transaction"] == again["transaction"]
        path = f"/v1/charges/{charged['transaction']['id']}/refunds"  # pyright: ignore[reportPossiblyUnboundVariable] - twice
        await self._post(path, {}, str(uuid4()), 201)
        items = [{"product_id": self.product, "quantity": 1}]
        order = {"user_email": f"{uuid4().hex}@example.com", "items": items}
        await self._post("/orders", order, str(uuid4()), 201)
        webhook = {
            "transaction_id": uuid4().hex,
            "source_account": f"soak-{number % _ACCOUNTS}",
            "destination_account": f"soak-{(number + 1) % _ACCOUNTS}",
            "amount": 1,
            "currency": "USD",
        }
        await self._post("/v1/webhooks/transactions", webhook, None, 202)

    async def _post(self, path: str, body: object, key: str | None, status: int) -> Any:  # noqa: ANN401 - whatever is answered
        headers = {"Idempotency-Key": key} if key else {}
        answer = await self.by.post(path, body, headers)
        self.requests += 1
        if answer.status == 503:  # the machine is busy: a client would come again
            await asyncio.sleep(0.5)
            return await self._post(path, body, key, status)
        assert answer.status == status, answer
        return answer.json


async def opened(by: Caller) -> Mixed:
    body = {"name": "Mouse", "price": "25.00", "stock": STOCK, "is_active": True}
    made = await by.post("/admin/products", body, {"X-Admin-Secret": ADMIN_SECRET})
    assert made.status == 201, made
    return Mixed(by, made.json["id"])


@asynccontextmanager
async def going_on(mixed: Mixed, *, customers: int, pause_seconds: float) -> AsyncGenerator[None]:
    end = asyncio.Event()
    numbers = count()

    async def customer(user: int) -> None:
        while not end.is_set():
            await mixed.round(user, next(numbers))
            await asyncio.sleep(pause_seconds)

    users = await mixed.by.new_users(customers, 1_000_000_000)
    tasks = [asyncio.create_task(customer(user)) for user in users]
    try:
        yield
    finally:
        end.set()
        await asyncio.gather(*tasks)
