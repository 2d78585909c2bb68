"""What a stranger may send to break something: every answer is one of ours, and never a 5xx."""

import asyncio
import json
from base64 import urlsafe_b64encode
from typing import Any, Final

import httpx2
import pytest
from tests.api.shop import order, wanted
from tests.api.steps import a_user, charge, problem
from tests.conftest import serving

from picopay.infra.settings import Environment, Settings

LISTS: Final = (
    "/v1/charges",
    "/v1/charges/0198c0de-0000-7000-8000-00000000abcd/refunds",
    "/v1/users/1/entries",
    "/v1/accounts/world/entries",
    "/v1/transactions",
    "/v1/admin/dead-letters",
    "/orders",
    "/products",
    "/products?sort_by=name",
    "/products?sort_by=price",
)
UUID_TEXT: Final = "0198c0de-0000-7000-8000-00000000abcd"
POSITIONS: Final[list[Any]] = [
    None, True, 0, -1, 2**63, 2**64, 1.5, 1e308, "", "x", "\0", "'; DROP TABLE charges; --",
    UUID_TEXT, [], [[]], [1], ["", "", ""], [UUID_TEXT] * 3, ["\0", "\0", UUID_TEXT], {},
    {"USD": 1}, {"USD": 2**63}, {"USD": "1" * 5000}, {"USD": None}, {"U\0D": 1}, {"": 1},
    {"USD": {}}, {"x" * 200: 1}, {"USD": 1e300},
]  # fmt: skip
NO_BASE64: Final = ["", "=", "%00", "é", "a" * 501, "....", "//", "bnVsbA==\n"]
NO_SIGNS: Final = ("\u202e", "\u200b", "\u2066", "\ufeff", "\u00ad", "\u0085", "\ue000", "\x7f")


@pytest.fixture
async def admin(client: httpx2.AsyncClient, settings: Settings) -> httpx2.AsyncClient:
    client.headers["X-Admin-Secret"] = str(settings.admin_secret)
    return client


@pytest.mark.parametrize("path", LISTS)
async def test_a_cursor_that_was_tampered_with_is_no_error_of_ours(
    admin: httpx2.AsyncClient, path: str
) -> None:
    await a_user(admin)
    sealed = [urlsafe_b64encode(json.dumps(position).encode()).decode() for position in POSITIONS]
    for cursor in [*sealed, *NO_BASE64]:
        answer = await admin.get(path, params={"cursor": cursor})
        assert answer.status_code in (200, 404, 422), (cursor, answer.text)
        if answer.status_code == 200:  # a place in the list: shows what the list itself shows
            assert isinstance(answer.json(), (dict, list))


BOMBS: Final = {
    "nesting": b"[" * 60_000,
    "members": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "digits": b'{"user_id":1,"currency":"USD","amount":' + b"9" * 60_000 + b"}",
    "decimals": b'{"user_id":1,"currency":"USD","amount":0.' + b"9" * 60_000 + b"}",
    "exponent": b'{"user_id":1,"currency":"USD","amount":1e999999999999}',
    "small exponent": b'{"user_id":1,"currency":"USD","amount":1e-999999999}',
    "text of digits": b'{"user_id":1,"currency":"USD","amount":"' + b"9" * 60_000 + b'"}',
    "id of digits": b'{"user_id":' + b"9" * 60_000 + b',"currency":"USD","amount":1}',
    "fields": b"{" + b",".join(b'"f%d":1' % n for n in range(5_000)) + b"}",
    "twice": b'{"user_id":1,"user_id":2,"currency":"USD","amount":1}',
    "surrogate": b'{"user_id":1,"currency":"\\ud800","amount":1}',
    "UTF-16": '{"user_id":1,"currency":"USD","amount":1}'.encode("utf-16"),
    "no UTF-8": b'{"user_id":1,"currency":"\xff\xfe","amount":1}',
    "BOM": b'\xef\xbb\xbf{"user_id":1,"currency":"USD","amount":1}',
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_body_made_to_burst_is_refused_at_once(
    admin: httpx2.AsyncClient, bomb: str
) -> None:
    for path in ("/charge", "/v1/users", "/admin/products", "/orders", "/v1/charges/batch"):
        async with asyncio.timeout(5):
            answer = await admin.post(path, content=BOMBS[bomb])
        problem(answer, 422, "validation")
        assert len(answer.content) < 2_000


@pytest.mark.parametrize("bomb", ["digits", "exponent", "text of digits", "id of digits"])
async def test_one_item_made_to_burst_does_not_spoil_its_batch(
    client: httpx2.AsyncClient, bomb: str
) -> None:
    await a_user(client)
    fair = b'{"user_id":1,"currency":"USD","amount":1}'
    async with asyncio.timeout(5):
        body = b'{"charges":[' + fair + b"," + BOMBS[bomb] + b"]}"
        answer = await client.post("/v1/charges/batch", content=body)
    assert answer.status_code in (200, 422)
    if answer.status_code == 200:
        statuses = [result["status"] for result in answer.json()["results"]]
        assert statuses == ["success", "rejected"]


@pytest.mark.parametrize("sign", NO_SIGNS, ids=ascii)
async def test_an_e_mail_address_holds_nothing_that_cannot_be_seen(
    admin: httpx2.AsyncClient, sign: str
) -> None:
    """Or one address would have many spellings that look alike, each with its own rate limit."""
    product = await a_product_of(admin)
    for email in (f"a{sign}da@example.com", f"ada@exam{sign}ple.com"):
        refused = problem(await order(admin, wanted((product, 1), email=email)), 422, "validation")
        assert [error["field"] for error in refused["errors"]] == ["user_email"]


async def test_an_e_mail_address_in_any_script_is_taken(admin: httpx2.AsyncClient) -> None:
    product = await a_product_of(admin)
    for email in ("jürgen@müller.example", "用户@例子.example", "o'brien+1@example.com"):
        assert (await order(admin, wanted((product, 1), email=email))).status_code == 201


async def a_product_of(admin: httpx2.AsyncClient) -> str:
    made = await admin.post("/admin/products", json={"name": "M", "price": "1", "stock": 9})
    assert made.status_code == 201, made.text
    return made.json()["id"]


@pytest.mark.parametrize("owner", ["%00", "user:1%0a", "user:1'--", "%ff", "user:٣", "x" * 201])
async def test_an_owner_that_is_none_is_not_found(client: httpx2.AsyncClient, owner: str) -> None:
    for path in (f"/v1/accounts/{owner}", f"/v1/accounts/{owner}/entries"):
        assert (await client.get(path)).status_code in (404, 422)


@pytest.mark.parametrize("host", ["evil.example", "a/b?c#d", "[::1", "x:99999999", "a@b", "a\\b"])
async def test_the_host_header_decides_nothing(admin: httpx2.AsyncClient, host: str) -> None:
    for _ in range(2):
        await a_product_of(admin)
    page = await admin.get("/products?limit=1", headers={"Host": host})
    assert page.headers["link"].startswith("</products?limit=1&cursor=")
    missing = await admin.get("/nothing", headers={"Host": host})
    assert problem(missing, 404, "not-found")["detail"] == "there is nothing at /nothing"


async def test_in_production_the_fake_provider_calls_nobody_but_us(settings: Settings) -> None:
    """Whoever reaches it could otherwise have any address inside called."""
    settings = settings.model_copy(update={"picopay_url": "http://127.0.0.1:8000"})
    body = {"order_id": "x", "amount": 1}
    async with serving(
        settings,
        picopay_env=Environment.PRODUCTION,
        fake_payment_enabled=True,
        payment_webhook_secret="s",
    ) as client:
        for url in ("http://169.254.169.254/latest", "http://127.0.0.1:6379/", "http://localhost/"):
            answer = await client.post("/_fake_payments", json={**body, "callback_url": url})
            problem(answer, 422, "validation")
        own = "http://127.0.0.1:8000/payments/callback"
        for url in ({}, {"callback_url": own}):
            assert (await client.post("/_fake_payments", json=body | url)).status_code == 200


async def test_a_name_with_any_signs_is_told_as_it_was_given(admin: httpx2.AsyncClient) -> None:
    name = '\u202e<script>alert(1)</script> "; DROP TABLE products; -- \u2028'
    made = await admin.post("/admin/products", json={"name": name, "price": "1", "stock": 1})
    assert made.status_code == 201
    assert made.headers["content-type"] == "application/json"
    assert (await admin.get("/products")).json()[0]["name"] == name


@pytest.mark.parametrize(
    "amount", ["\uff11", "\u0661", "1\u00a00", "1_0", " 1", "1 ", "0x1", "1\0"]
)
async def test_only_digits_are_digits(client: httpx2.AsyncClient, amount: str) -> None:
    await a_user(client)
    problem(await charge(client, amount), 422, "validation")
