"""`GET /v1/charges` and `GET /v1/charges/{id}`: what was charged, and nobody else's."""

import base64
import json
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx2
import pytest
from tests.api.steps import a_key, a_user, charge, keyed, problem

from picopay.infra.db import Db

KEY = "0198c0de-0000-7000-8000-00000000abcd"


async def page(client: httpx2.AsyncClient, **query: str | int) -> dict[str, Any]:
    answer = await client.get("/v1/charges", params=query)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert list(shown) == ["data", "has_more", "next_cursor"]
    assert shown["has_more"] is (shown["next_cursor"] is not None)
    return shown


async def charges(client: httpx2.AsyncClient, number: int, user_id: int = 1) -> list[str]:
    """Ids of that many new charges, newest first."""
    made = [await charge(client, 1, user_id=user_id) for _ in range(number)]
    return [answer.json()["transaction"]["id"] for answer in reversed(made)]


def ids(shown: dict[str, Any]) -> list[str]:
    return [item["id"] for item in shown["data"]]


async def test_a_charge_is_shown_as_it_was_answered(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    made = (await charge(client, 100, headers=keyed(KEY))).json()

    shown = await client.get(f"/v1/charges/{made['transaction']['id']}")

    assert shown.status_code == 200
    created_at = shown.json()["created_at"]
    assert created_at.endswith("Z")
    assert shown.text == (
        f'{{"id":"{made["transaction"]["id"]}","user_id":1,"amount":100.00,"currency":"USD",'
        f'"status":"success","idempotency_key":"{KEY}","new_balance":900.00,"refunded":0.00,'
        f'"created_at":"{created_at}"}}'
    )
    assert (await client.get("/v1/charges")).text == (
        f'{{"data":[{shown.text}],"has_more":false,"next_cursor":null}}'
    )


@pytest.mark.parametrize("decimals", [("JPY", "5"), ("KWD", "5.000"), ("USD", "5.00")])
async def test_amounts_read_with_the_currencys_decimals(
    client: httpx2.AsyncClient, decimals: tuple[str, str]
) -> None:
    currency, amount = decimals
    await a_user(client, amount="10", currency=currency)
    await charge(client, 5, currency)
    text = (await client.get("/v1/charges")).text
    assert f'"amount":{amount},"currency":"{currency}"' in text
    assert f'"new_balance":{amount}' in text


async def test_an_unknown_charge_is_not_found(client: httpx2.AsyncClient) -> None:
    problem(await client.get(f"/v1/charges/{uuid4()}"), 404, "charge-not-found")


@pytest.mark.parametrize("text", ["x", "1", "%00", "null", "0198c0de", KEY + "0", "%F0%9F%92%B8"])
async def test_an_id_that_is_no_uuid_is_not_valid(client: httpx2.AsyncClient, text: str) -> None:
    refused = problem(await client.get(f"/v1/charges/{text}"), 422, "validation")
    assert refused["errors"][0]["field"] == "charge_id"


async def test_other_merchants_charges_do_not_exist(client: httpx2.AsyncClient, db: Db) -> None:
    await a_user(client)
    ours, theirs = await a_key(db, "ours"), await a_key(db, "theirs")
    made = await charge(client, 1, headers=ours)
    path = f"/v1/charges/{made.json()['transaction']['id']}"

    assert (await client.get(path, headers=ours)).status_code == 200
    refused = problem(await client.get(path, headers=theirs), 404, "charge-not-found")
    nobody = problem(await client.get(f"/v1/charges/{uuid4()}"), 404, "charge-not-found")
    assert set(refused) == set(nobody)
    assert len((await client.get("/v1/charges", headers=ours)).json()["data"]) == 1
    assert (await client.get("/v1/charges", headers=theirs)).json()["data"] == []
    assert (await page(client))["data"] == []


async def test_charges_are_listed_newest_first(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    made = await charges(client, 5)
    assert ids(await page(client)) == made


async def test_pages_follow_each_other_without_gap_or_repeat(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    made = await charges(client, 7)

    first = await page(client, limit=3)
    second = await page(client, limit=3, cursor=first["next_cursor"])
    third = await page(client, limit=3, cursor=second["next_cursor"])

    assert [ids(first), ids(second), ids(third)] == [made[:3], made[3:6], made[6:]]
    assert [p["has_more"] for p in (first, second, third)] == [True, True, False]


async def test_a_full_last_page_has_no_more(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    await charges(client, 3)
    assert (await page(client, limit=3))["has_more"] is False


async def test_pages_are_stable_while_charges_are_written(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    made = await charges(client, 6)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        shown = await page(client, limit=2, **cursor)
        seen += ids(shown)
        await charges(client, 2)
        if not shown["has_more"]:
            break
        cursor = {"cursor": shown["next_cursor"]}
    assert seen == made


async def test_twenty_are_a_page_and_a_hundred_at_most(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    items = [{"user_id": 1, "amount": 1, "currency": "USD"}] * 102
    await client.post("/v1/charges/batch", json={"charges": items})

    assert len((await page(client))["data"]) == 20
    assert len((await page(client, limit=1))["data"]) == 1
    assert len((await page(client, limit=100))["data"]) == 100


@pytest.mark.parametrize("path", ["/v1/charges", "/v1/users/1/entries", "/v1/accounts/x/entries"])
@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "x", "", "1e1", "9" * 30, "\0"])
async def test_a_limit_is_between_1_and_100(
    client: httpx2.AsyncClient, path: str, limit: str
) -> None:
    refused = problem(await client.get(path, params={"limit": limit}), 422, "validation")
    assert refused["errors"][0]["field"] == "limit"


async def test_charges_are_filtered_by_user_and_currency(client: httpx2.AsyncClient) -> None:
    await a_user(client, 1)
    await a_user(client, 1, "10", "EUR")
    await a_user(client, 2)
    first, second = await charges(client, 2, user_id=1), await charges(client, 3, user_id=2)
    euro = (await charge(client, 1, "EUR")).json()["transaction"]["id"]

    assert ids(await page(client, user_id=1)) == [euro, *first]
    assert ids(await page(client, user_id=2)) == second
    assert ids(await page(client, user_id=3)) == []
    assert ids(await page(client, currency="EUR")) == [euro]
    assert ids(await page(client, currency="USD", user_id=1)) == first
    assert ids(await page(client, currency="ZZZ")) == []


async def test_a_filter_goes_on_over_the_pages(client: httpx2.AsyncClient) -> None:
    await a_user(client, 1)
    await a_user(client, 2)
    mine: list[str] = []
    for _ in range(3):
        mine = await charges(client, 1, user_id=1) + mine
        await charges(client, 1, user_id=2)

    first = await page(client, user_id=1, limit=2)
    second = await page(client, user_id=1, limit=2, cursor=first["next_cursor"])

    assert ids(first) + ids(second) == mine


async def test_charges_are_filtered_by_time_exclusively(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    made = await charges(client, 3)
    times = {item["id"]: item["created_at"] for item in (await page(client))["data"]}
    middle = times[made[1]]

    assert ids(await page(client, created_after=middle)) == made[:1]
    assert ids(await page(client, created_before=middle)) == made[2:]
    assert ids(await page(client, created_after=middle, created_before=middle)) == []
    elsewhere = datetime.fromisoformat(middle) - timedelta(microseconds=1)
    shifted = quote(elsewhere.isoformat().replace("+00:00", "-00:00"))
    answer = await client.get(f"/v1/charges?created_after={shifted}")
    assert ids(answer.json()) == made[:2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("user_id", value) for value in ("0", "-1", str(2**63), "x", "1.5", "")),
        *(("currency", value) for value in ("usd", "USDX", "", "U\0D", "US\n")),
        *(("created_after", value) for value in ("x", "", "0", "2026-01-01T00:00:00", "9" * 40)),
        *(("created_before", value) for value in ("2026-13-01T00:00:00Z", "0001-01-01T00:00:00Z")),
        ("created_after", "9999-12-31T23:59:59-23:59"),
        ("created_after", "2026-01-01"),
    ],
)
async def test_a_filter_that_means_nothing_is_not_valid(
    client: httpx2.AsyncClient, name: str, value: str
) -> None:
    refused = problem(await client.get("/v1/charges", params={name: value}), 422, "validation")
    assert refused["errors"][0]["field"] == name


def encoded(position: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).rstrip(b"=").decode()


TAMPERED = [
    *("", "x", "%%%", "é", "\0", "null", "=" * 400, "A" * 500, KEY),
    *(
        encoded(p)
        for p in (None, 1, -1, True, [], {}, [KEY], {"id": KEY}, "x", "", KEY + "0", 2**80)
    ),
    base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    base64.urlsafe_b64encode(b"[" * 300).decode(),
    base64.urlsafe_b64encode(b'{"USD": 1e400}').decode(),
    encoded({"USD": 0}),
    encoded({"USD": 2**63}),
]


async def test_a_cursor_is_opaque_and_a_tampered_one_is_refused(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client)
    await charges(client, 2)
    shown = await page(client, limit=1)
    assert shown["data"][0]["id"] not in shown["next_cursor"]

    for cursor in (*TAMPERED, shown["next_cursor"][:-4], shown["next_cursor"] + "AAAA"):
        for path in ("/v1/charges", "/v1/users/1/entries", "/v1/accounts/merchant:default/entries"):
            answer = await client.get(path, params={"cursor": cursor})
            assert answer.status_code == 422, (path, cursor, answer.text)
            problem(answer, 422, "cursor-invalid")


async def test_a_cursor_of_another_list_is_refused(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    await charges(client, 2)
    of_charges = (await page(client, limit=1))["next_cursor"]
    entries = await client.get("/v1/users/1/entries", params={"limit": 1})
    of_entries = entries.json()["next_cursor"]

    problem(await client.get("/v1/charges", params={"cursor": of_entries}), 422, "cursor-invalid")
    answer = await client.get("/v1/users/1/entries", params={"cursor": of_charges})
    problem(answer, 422, "cursor-invalid")


async def test_an_endless_cursor_is_not_valid(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/charges", params={"cursor": "A" * 501})
    problem(answer, 422, "validation")
