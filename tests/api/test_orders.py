"""Orders over HTTP: placed once, priced once, and closed once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from structlog.testing import capture_logs
from tests.api.shop import (
    ADMIN,
    CALLBACK_SECRET,
    EMAIL,
    a_product,
    call_back,
    order,
    placed,
    status_of,
    stock_of,
    story_of,
    wanted,
)
from tests.api.steps import problem
from tests.conftest import serving

from picopay.catalog.model import STOCK_MAX
from picopay.infra.routing import encode_cursor
from picopay.infra.settings import Settings

UNKNOWN = "0197c5a4-6b1e-7c3a-9d55-0a4be3a1c001"


@pytest.fixture
def shop(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "admin_secret": ADMIN["X-Admin-Secret"],
            "payment_webhook_secret": f"{CALLBACK_SECRET},an-older-secret",
            "payment_provider": "manual",
            "rate_limit_orders_per_address_per_minute": 10_000,
        }
    )


@pytest.fixture
async def client(shop: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """Nobody works in the background: what is due stays due."""
    async with serving(shop) as client:
        yield client


@pytest.fixture
async def mouse(client: httpx2.AsyncClient) -> str:
    return await a_product(client)


async def test_an_order_reserves_its_stock_and_shows_what_was_bought(
    client: httpx2.AsyncClient, mouse: str
) -> None:
    lamp = await a_product(client, name="Lamp", price="0.99")
    answer = await order(client, wanted((mouse, 2), (lamp, 3), email=EMAIL))
    assert answer.status_code == 201
    made = answer.json()
    assert list(made) == [
        *("id", "user_email", "status", "items_total", "currency", "items"),
        *("created_at", "updated_at"),
    ]
    assert made["currency"] == "USD"
    assert (made["user_email"], made["status"], made["items_total"]) == (EMAIL, "reserved", 52.97)
    assert [(i["product_id"], i["quantity"], i["price_snapshot"]) for i in made["items"]] == [
        (mouse, 2, 25),
        (lamp, 3, 0.99),
    ]
    assert (await client.get(f"/orders/{made['id']}")).json() == made
    assert (await stock_of(client, mouse), await stock_of(client, lamp)) == (8, 7)
    assert await story_of(client, made["id"]) == ["order.placed"]


async def test_ten_concurrent_repeats_are_one_order(
    client: httpx2.AsyncClient, mouse: str, owner: asyncpg.Connection
) -> None:
    body, key = wanted((mouse, 1)), str(uuid4())
    answers = await asyncio.gather(*(order(client, body, key) for _ in range(10)))
    assert {(a.status_code, a.content) for a in answers} == {(201, answers[0].content)}
    replays = [a for a in answers if a.headers.get("idempotent-replayed") == "true"]
    assert len(replays) == 9
    assert await stock_of(client, mouse) == 9
    assert await owner.fetchval("SELECT count(*) FROM orders") == 1


async def test_a_replay_is_the_first_answer_whatever_has_become_of_the_order(
    client: httpx2.AsyncClient, mouse: str
) -> None:
    body, key = wanted((mouse, 1)), str(uuid4())
    first = await order(client, body, key)
    await client.post(f"/orders/{first.json()['id']}/cancel")
    again = await order(client, body, key)
    assert again.content == first.content
    assert await status_of(client, first.json()["id"]) == "canceled"
    assert await stock_of(client, mouse) == 10


@pytest.mark.parametrize("change", ["quantity", "email", "product"])
async def test_a_key_means_one_order(client: httpx2.AsyncClient, mouse: str, change: str) -> None:
    key, lamp = str(uuid4()), await a_product(client, name="Lamp")
    assert (await order(client, wanted((mouse, 1), email=EMAIL), key)).status_code == 201
    other = {
        "quantity": wanted((mouse, 2), email=EMAIL),
        "email": wanted((mouse, 1), email="eve@example.com"),
        "product": wanted((lamp, 1), email=EMAIL),
    }[change]
    refused = problem(await order(client, other, key), 409, "idempotency-key-reused")
    assert refused["mismatched_fields"] == ["user_email" if change == "email" else "items"]
    assert await stock_of(client, mouse) == 9


async def test_the_order_of_lines_does_not_matter_and_one_product_twice_is_the_sum(
    client: httpx2.AsyncClient, mouse: str
) -> None:
    lamp, key = await a_product(client, name="Lamp"), str(uuid4())
    split = wanted((mouse, 2), (lamp, 1), (mouse, 3), email=EMAIL)
    first = await order(client, split, key)
    assert [item["quantity"] for item in first.json()["items"]] == [5, 1]
    assert await stock_of(client, mouse) == 5
    again = await order(client, wanted((lamp, 1), (mouse, 5), email=EMAIL), key)
    assert again.content == first.content


@pytest.mark.parametrize("key", [None, "", " ", "x" * 256, "ä"])
async def test_a_key_is_needed(client: httpx2.AsyncClient, mouse: str, key: str | None) -> None:
    headers = [] if key is None else [(b"Idempotency-Key", key.encode())]
    answer = await client.post("/orders", json=wanted((mouse, 1)), headers=headers)
    problem(answer, 400, "idempotency-key-invalid")


@pytest.mark.parametrize(
    "change",
    [
        {"items": []},
        {"items": [{"product_id": "x", "quantity": 1}]},
        {"items": [{"product_id": UNKNOWN, "quantity": 0}]},
        {"items": [{"product_id": UNKNOWN, "quantity": -1}]},
        {"items": [{"product_id": UNKNOWN, "quantity": 1.5}]},
        {"items": [{"product_id": UNKNOWN, "quantity": 10**12}]},
        {"items": [{"product_id": UNKNOWN, "quantity": True}]},
        {"items": [{"product_id": UNKNOWN, "quantity": 1}] * 101},
        {"items": "none"},
        {"user_email": "nobody"},
        {"user_email": "a b@example.com"},
        {"user_email": "a\0@example.com"},
        {"user_email": "@"},
        {"user_email": "x" * 250 + "@example.com"},
        {"user_id": 1},
    ],
)
async def test_what_is_no_order_is_told(
    client: httpx2.AsyncClient, mouse: str, change: dict[str, Any]
) -> None:
    problem(await order(client, wanted((mouse, 1)) | change), 422, "validation")
    assert await stock_of(client, mouse) == 10


async def test_what_is_not_for_sale_is_refused_and_its_key_stays_free(
    client: httpx2.AsyncClient, mouse: str
) -> None:
    asleep = await a_product(client, is_active=False)
    gone = await a_product(client)
    assert (await client.delete(f"/admin/products/{gone}", headers=ADMIN)).status_code == 204
    key = str(uuid4())
    for product in (UNKNOWN, asleep, gone):
        refused = problem(
            await order(client, wanted((mouse, 1), (product, 1)), key), 400, "product-unavailable"
        )
        assert refused["product_id"] == product
    refused = problem(await order(client, wanted((mouse, 11)), key), 409, "insufficient-stock")
    assert (refused["requested"], refused["available"]) == (11, 10)
    assert (await order(client, wanted((mouse, 10)), key)).status_code == 201
    assert await stock_of(client, mouse) == 0


async def test_a_later_price_does_not_touch_the_order_and_an_archived_product_stays_in_it(
    client: httpx2.AsyncClient, mouse: str
) -> None:
    made = await placed(client, (mouse, 2))
    await client.patch(f"/admin/products/{mouse}", json={"price": "99.00"}, headers=ADMIN)
    await client.delete(f"/admin/products/{mouse}", headers=ADMIN)
    assert (await client.get(f"/orders/{made['id']}")).json() == made
    await client.post(f"/orders/{made['id']}/cancel")
    assert await stock_of(client, mouse) == 10


async def test_an_order_can_be_canceled_until_it_is_closed(
    client: httpx2.AsyncClient, mouse: str
) -> None:
    made = await placed(client, (mouse, 4))
    answers = await asyncio.gather(
        *(client.post(f"/orders/{made['id']}/cancel") for _ in range(10))
    )
    assert sorted(a.status_code for a in answers) == [200] + [409] * 9
    (canceled,) = [a.json() for a in answers if a.status_code == 200]
    assert canceled["status"] == "canceled"
    assert canceled["updated_at"] > made["updated_at"]
    refused = next(a for a in answers if a.status_code == 409)
    problem(refused, 409, "order-not-cancelable")
    assert await stock_of(client, mouse) == 10
    paid = await placed(client, (mouse, 1))
    assert (await call_back(client, paid["id"], "success")).status_code == 200
    problem(await client.post(f"/orders/{paid['id']}/cancel"), 409, "order-not-cancelable")
    problem(await client.post(f"/orders/{UNKNOWN}/cancel"), 404, "order-not-found")


async def test_a_success_pays_the_order_on_the_ledger_once(
    client: httpx2.AsyncClient, mouse: str
) -> None:
    made = await placed(client, (mouse, 2))
    answers = await asyncio.gather(*(call_back(client, made["id"], "success") for _ in range(10)))
    assert {(a.status_code, a.content) for a in answers} == {(200, b'{"status":"ok"}')}
    assert await status_of(client, made["id"]) == "paid"
    shop = (await client.get("/v1/accounts/merchant:default")).json()["balances"]
    assert shop == [{"currency": "USD", "balance": 50}]
    assert await story_of(client, made["id"]) == [
        *("order.placed", "payment.succeeded", "order.paid")
    ]


async def test_a_failure_returns_the_stock_once_and_nothing_revives_the_order(
    client: httpx2.AsyncClient, mouse: str, owner: asyncpg.Connection
) -> None:
    made = await placed(client, (mouse, 2))
    for status in ("failed", "failed", "success", "success", "failed"):
        assert (await call_back(client, made["id"], status)).status_code == 200
    assert await status_of(client, made["id"]) == "canceled"
    assert await stock_of(client, mouse) == 10
    refunds = await owner.fetch("SELECT payment_id, status FROM order_refunds")
    assert [tuple(row) for row in refunds] == [("pay_1", "requested")]
    assert await story_of(client, made["id"]) == [
        *("order.placed", "payment.failed", "order.canceled"),
        *("payment.succeeded", "refund.requested"),
    ]


async def test_a_second_payment_is_given_back_and_a_failure_after_paid_changes_nothing(
    client: httpx2.AsyncClient, mouse: str, owner: asyncpg.Connection
) -> None:
    made = await placed(client, (mouse, 1))
    await call_back(client, made["id"], "success")
    await call_back(client, made["id"], "success", "pay_2")
    await call_back(client, made["id"], "failed", "pay_3")
    await call_back(client, made["id"], "failed")
    assert await status_of(client, made["id"]) == "paid"
    assert await stock_of(client, mouse) == 9
    assert await owner.fetchval("SELECT string_agg(payment_id, ' ') FROM order_refunds") == "pay_2"


async def test_cancel_against_payment_ends_in_one_of_the_two(
    client: httpx2.AsyncClient, mouse: str, owner: asyncpg.Connection
) -> None:
    ended: set[str] = set()
    for _ in range(10):
        made = await placed(client, (mouse, 1))
        await asyncio.gather(
            client.post(f"/orders/{made['id']}/cancel"), call_back(client, made["id"], "success")
        )
        status = await status_of(client, made["id"])
        refunds = await owner.fetchval(
            "SELECT count(*) FROM order_refunds WHERE order_id = $1", made["id"]
        )
        assert (status, refunds) in {("paid", 0), ("canceled", 1)}
        ended.add(status)
    sold = await owner.fetchval("SELECT count(*) FROM orders WHERE status = 'paid'")
    assert await stock_of(client, mouse) == 10 - sold


@pytest.mark.parametrize("secret", ["wrong-secret", "whsec_wrong-secret"])
async def test_a_forged_callback_is_refused(
    client: httpx2.AsyncClient, mouse: str, secret: str
) -> None:
    made = await placed(client, (mouse, 1))
    answer = await call_back(client, made["id"], "success", secret=secret)
    problem(answer, 401, "signature-invalid")
    assert (await call_back(client, made["id"], "success", secret="an-older-secret")).is_success
    assert await status_of(client, made["id"]) == "paid"


async def test_a_callback_is_verified_before_it_is_read(client: httpx2.AsyncClient) -> None:
    problem(await client.post("/payments/callback", content=b"{"), 401, "signature-invalid")
    unknown = await call_back(client, UNKNOWN, "success")
    problem(unknown, 404, "order-not-found")
    problem(await call_back(client, UNKNOWN, "maybe"), 422, "validation")


async def test_the_sixth_order_of_an_address_in_a_minute_waits(
    client: httpx2.AsyncClient, mouse: str
) -> None:
    first = wanted((mouse, 1), email=EMAIL)
    keys = [str(uuid4()) for _ in range(5)]
    for key in keys:
        assert (await order(client, first, key)).status_code == 201
    for key in keys:
        assert (await order(client, first, key)).headers["idempotent-replayed"] == "true"
    limited = await order(client, wanted((mouse, 1), email=EMAIL.upper()))
    problem(limited, 429, "rate-limited")
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    assert (await order(client, wanted((mouse, 1)))).status_code == 201
    assert await stock_of(client, mouse) == 4


async def test_orders_are_listed_for_admins_alone(client: httpx2.AsyncClient, mouse: str) -> None:
    made = [await placed(client, (mouse, 1)) for _ in range(3)]
    await call_back(client, made[0]["id"], "success")
    assert (await client.get("/orders")).status_code == 401
    shown: list[str] = []
    cursor = ""
    while True:
        page = (await client.get(f"/orders?limit=2{cursor}", headers=ADMIN)).json()
        shown += [entry["id"] for entry in page["data"]]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert shown == [entry["id"] for entry in reversed(made)]
    paid = (await client.get("/orders?status=paid", headers=ADMIN)).json()["data"]
    assert [entry["id"] for entry in paid] == [made[0]["id"]]
    email = made[1]["user_email"]
    theirs = (await client.get(f"/orders?user_email={email}", headers=ADMIN)).json()["data"]
    assert [entry["id"] for entry in theirs] == [made[1]["id"]]


async def test_an_api_key_can_be_asked_for(shop: Settings) -> None:
    async with serving(shop, orders_require_api_key=True) as client:
        mouse = await a_product(client)
        assert (await placed(client, (mouse, 1)))["status"] == "reserved"
        client.headers.pop("X-API-Key")
        problem(await order(client, wanted((mouse, 1))), 401, "api-key-invalid")
        problem(await client.get(f"/orders/{UNKNOWN}"), 401, "api-key-invalid")


async def test_every_metric_moves(client: httpx2.AsyncClient, mouse: str) -> None:
    names = ("orders_total", "orders_paid_total", "orders_canceled_total")

    async def counts() -> list[float]:
        lines = (await client.get("/metrics")).text.splitlines()
        found = dict(line.split(" ") for line in lines if line.startswith("orders_"))
        return [float(found[name]) for name in names]

    before = await counts()
    paid, failed, canceled = [await placed(client, (mouse, 1)) for _ in range(3)]
    await call_back(client, paid["id"], "success")
    await call_back(client, failed["id"], "failed")
    await client.post(f"/orders/{canceled['id']}/cancel")
    after = await counts()
    assert [now - then for now, then in zip(after, before, strict=True)] == [3, 1, 2]


async def test_no_email_holds_a_nul(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/orders", params={"user_email": "a\0@example.com"}, headers=ADMIN)
    assert answer.status_code == 422
    assert answer.json()["code"] == "validation"


async def test_what_a_person_must_give_back_is_listed_and_booked(
    client: httpx2.AsyncClient, mouse: str, owner: asyncpg.Connection
) -> None:
    """The provider is `manual`: nobody can be called for it."""
    owed: list[dict[str, str]] = []
    for _ in range(3):
        made = await placed(client, (mouse, 1))
        await client.post(f"/orders/{made['id']}/cancel")
        await call_back(client, made["id"], "success", f"pay/{made['id']}")
        owed.insert(0, {"order_id": made["id"], "payment_id": f"pay/{made['id']}"})
    path, done = "/admin/refunds", owed[1]
    problem(await client.post(path, json=done, headers=ADMIN), 409, "refund-in-progress")
    await owner.execute("UPDATE order_refunds SET status = 'failed'")
    answer = await client.post(path, json=done, headers=ADMIN)
    assert answer.json() == done | {
        "amount": 25.0, "currency": "USD", "provider": "manual", "status": "succeeded",
    }  # fmt: skip
    assert (await client.post(path, json=done, headers=ADMIN)).json() == answer.json()
    listed: list[dict[str, str]] = []
    query = {"status": "failed", "limit": "1"}
    while True:
        page = (await client.get(path, params=query, headers=ADMIN)).json()
        listed += [{name: row[name] for name in done} for row in page["data"]]
        if not page["has_more"]:
            break
        query["cursor"] = page["next_cursor"]
    assert listed == [owed[0], owed[2]]
    of = done["order_id"]
    positions: list[object] = [[of, 1], [of, None], [of, "a\0"], [of], 7]
    for position in positions:
        cursor = encode_cursor(position)
        refused = await client.get(path, params={"cursor": cursor}, headers=ADMIN)
        problem(refused, 422, "cursor-invalid")
    problem(await client.post(path, json=done), 401, "admin-secret-invalid")
    unknown = done | {"payment_id": "pay_404"}
    problem(await client.post(path, json=unknown, headers=ADMIN), 404, "refund-not-found")
    unknown = done | {"order_id": UNKNOWN}
    problem(await client.post(path, json=unknown, headers=ADMIN), 404, "order-not-found")


async def test_a_cancel_returns_stock_onto_a_shelf_that_was_filled_meanwhile(
    client: httpx2.AsyncClient, mouse: str
) -> None:
    made = await placed(client, (mouse, 3))
    path = f"/admin/products/{mouse}"
    filled = await client.patch(path, json={"stock": STOCK_MAX}, headers=ADMIN)
    assert filled.status_code == 200
    assert (await client.post(f"/orders/{made['id']}/cancel")).status_code == 200
    assert await stock_of(client, mouse) == STOCK_MAX + 3
    more = await client.patch(path, json={"stock": STOCK_MAX + 1}, headers=ADMIN)
    problem(more, 422, "validation")


async def test_what_was_priced_in_another_currency_is_refused_with_the_reason_until_priced_anew(
    shop: Settings, client: httpx2.AsyncClient, mouse: str
) -> None:
    async with serving(shop, shop_currency="EUR") as in_euros:
        refused = problem(await order(in_euros, wanted((mouse, 1))), 400, "product-unavailable")
        assert refused["product_id"] == mouse
        assert "is priced in USD, the shop sells in EUR" in refused["detail"]
        assert (await in_euros.get(f"/products/{mouse}")).json()["currency"] == "USD"
        await in_euros.patch(f"/admin/products/{mouse}", json={"price": 20}, headers=ADMIN)
        assert (await placed(in_euros, (mouse, 1)))["currency"] == "EUR"


async def test_the_end_of_each_order_is_logged_once(client: httpx2.AsyncClient, mouse: str) -> None:
    paid, failed, canceled = [(await placed(client, (mouse, 1)))["id"] for _ in range(3)]
    with capture_logs() as logged:
        for _ in range(2):
            await call_back(client, paid, "success", "p-1")
            await call_back(client, failed, "failed", "p-2")
            await client.post(f"/orders/{canceled}/cancel")
        await call_back(client, canceled, "success", "p-3")
    ends = [
        (line["event"], line["order_id"], line.get("why"))
        for line in logged
        if line["event"] in {"order.paid", "order.canceled"}
    ]
    assert ends == [
        ("order.paid", paid, None),
        ("order.canceled", failed, "the payment failed"),
        ("order.canceled", canceled, "by the customer"),
    ]
