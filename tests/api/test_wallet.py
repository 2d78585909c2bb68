"""Orders paid from users' balances, and orders that cost nothing."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx2
import pytest
from tests.api.shop import (
    ADMIN,
    CALLBACK_SECRET,
    a_product,
    call_back,
    order,
    status_of,
    stock_of,
    story_of,
    wanted,
)
from tests.api.steps import a_user, problem
from tests.conftest import serving
from tests.integration.outbox.workers import drained

from picopay.infra.settings import Settings


@pytest.fixture
def shop(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "admin_secret": ADMIN["X-Admin-Secret"],
            "payment_webhook_secret": CALLBACK_SECRET,
            "picopay_worker": True,
            "payment_provider": "wallet",
        }
    )


@pytest.fixture
async def client(shop: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(shop) as client:
        yield client


async def balance_of(client: httpx2.AsyncClient, owner: str) -> float:
    (held,) = (await client.get(f"/v1/accounts/{owner}")).json()["balances"]
    return held["balance"]


async def test_an_order_is_paid_from_the_users_balance_while_it_lasts(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    mouse = await a_product(client)
    await a_user(client, amount="60")
    bodies = [wanted((mouse, 1)) | {"user_id": 1} for _ in range(4)]
    answers = await asyncio.gather(*(order(client, body) for body in bodies))
    assert {answer.status_code for answer in answers} == {201}
    await drained(owner)
    ids = [answer.json()["id"] for answer in answers]
    ended = [await status_of(client, order_id) for order_id in ids]
    assert sorted(ended) == ["canceled", "canceled", "paid", "paid"]
    assert await stock_of(client, mouse) == 8
    assert await balance_of(client, "user:1") == 10
    assert await balance_of(client, "merchant:default") == 50
    refused = ids[ended.index("canceled")]
    assert await story_of(client, refused) == ["order.placed", "payment.failed", "order.canceled"]


async def test_a_callback_about_a_wallet_changes_nothing(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    mouse = await a_product(client)
    await a_user(client, amount="1")
    made = (await order(client, wanted((mouse, 1)) | {"user_id": 1})).json()
    await drained(owner)
    assert (await call_back(client, made["id"], "success")).status_code == 200
    assert await status_of(client, made["id"]) == "canceled"
    assert await owner.fetchval("SELECT count(*) FROM order_refunds") == 0


async def test_who_pays_must_be_known_and_may_only_be_named_with_a_key(
    client: httpx2.AsyncClient,
) -> None:
    mouse = await a_product(client)
    problem(await order(client, wanted((mouse, 1))), 422, "validation")
    problem(await order(client, wanted((mouse, 1)) | {"user_id": 404}), 404, "user-not-found")
    client.headers.pop("X-API-Key")
    problem(await order(client, wanted((mouse, 1)) | {"user_id": 1}), 401, "api-key-invalid")


async def test_an_order_that_costs_nothing_is_paid_without_a_provider(
    shop: Settings, owner: asyncpg.Connection
) -> None:
    async with serving(shop, payment_provider="manual") as client:
        gift = await a_product(client, price="0.00")
        made = (await order(client, wanted((gift, 1)))).json()
        give_up_at = asyncio.get_running_loop().time() + 10
        while await status_of(client, made["id"]) != "paid":
            assert asyncio.get_running_loop().time() < give_up_at
            await asyncio.sleep(0.05)
        assert await owner.fetchval("SELECT count(*) FROM postings") == 0
        assert await stock_of(client, gift) == 9
