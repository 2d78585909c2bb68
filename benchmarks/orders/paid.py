"""Orders at a steady rate on a real server with its worker, and a provider that takes no time."""

import asyncio
import time
from pathlib import Path
from typing import Final

import orjson
from aiohttp import ClientSession
from contestants import Contestant, Wrong, check_money, free_port, running
from open_loop import steadily
from provider import SECRET, providing
from servers import Servers, numbers

PAID_SECONDS_MAX: Final = 60
SETTINGS: Final = {
    "PAYMENT_PROVIDER": "fake",
    "FAKE_PAYMENT_ENABLED": "true",
    "PAYMENT_WEBHOOK_SECRET": SECRET,
    "RATE_LIMIT_ORDERS_PER_ADDRESS_PER_MINUTE": "0",
}
# From commit to commit: each event is a row that is written once.
_SECONDS: Final = """
SELECT extract(epoch FROM pg_xact_commit_timestamp(paid.xmin)
                        - pg_xact_commit_timestamp(placed.xmin))::float8
  FROM order_events placed
  JOIN order_events paid USING (order_id)
 WHERE placed.happened = 'order.placed' AND paid.happened = 'order.paid'
"""


def steady(
    servers: Servers, contestant: Contestant, products: Path, *, per_second: int, seconds: int
) -> list[float]:
    """How long it took from each order's commit to its payment's, in seconds."""
    ids = products.read_text().split()

    async def send(session: ClientSession, index: int) -> None:
        item = {"product_id": ids[index % len(ids)], "quantity": 1}
        body = {"user_email": f"somebody-{index}@example.com", "items": [item]}
        headers = {"Idempotency-Key": f"order-{index}"}
        async with session.post("/orders", data=orjson.dumps(body), headers=headers) as answer:
            if answer.status != 201:
                raise Wrong(f"an order was answered {answer.status}: {await answer.text()}")
            await answer.read()

    async def until_paid(server_port: int) -> list[float]:
        async with providing(provider_port, server_port):
            await steadily(server_port, per_second=per_second, seconds=seconds, send=send)
            return await asyncio.to_thread(_when_paid, servers, contestant, per_second * seconds)

    provider_port = free_port()
    # Where the provider is looked for.
    settings = SETTINGS | {"PICOPAY_URL": f"http://127.0.0.1:{provider_port}"}
    with running(servers, contestant, settings) as server:
        return asyncio.run(until_paid(server.port))


def _when_paid(servers: Servers, contestant: Contestant, placed: int) -> list[float]:
    give_up_at = time.monotonic() + PAID_SECONDS_MAX
    while len(found := numbers(servers, contestant.database, _SECONDS)) < placed:
        if time.monotonic() > give_up_at:
            raise Wrong(f"{len(found)} orders of {placed} are paid")
        time.sleep(0.5)
    check_money(servers, contestant)
    return found
