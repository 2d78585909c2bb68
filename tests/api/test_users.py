"""Users: made once, deposited to once for each key, read with balances and a statement."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import asyncpg
import httpx2
import pytest
from tests.api.steps import a_key, a_user, charge, deposit, keyed, problem, statement_pages, written

from picopay.infra.db import Db

KEY = "0198c0de-0000-7000-8000-00000000abcd"


async def a_deposit(
    client: httpx2.AsyncClient, amount: object = 100, *, user_id: int = 1, key: str | None = KEY
) -> httpx2.Response:
    body = {"amount": amount, "currency": "USD"}
    headers = None if key is None else keyed(key)
    return await client.post(f"/v1/users/{user_id}/deposits", json=body, headers=headers)


async def test_a_user_is_made_once(client: httpx2.AsyncClient) -> None:
    first = await client.post("/v1/users", json={"id": 7})
    again = await client.post("/v1/users", json={"id": 7})

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.content == again.content
    assert list(first.json()) == ["id", "created_at", "balances"]
    assert first.json()["id"] == 7
    assert first.json()["balances"] == []
    assert datetime.fromisoformat(first.json()["created_at"]).utcoffset() is not None


async def test_a_user_is_shown_with_balances_by_currency(client: httpx2.AsyncClient) -> None:
    await a_user(client, 7, "1000", "USD")
    await a_user(client, 7, "1.5", "KWD")
    await a_user(client, 7, "20", "JPY")

    shown = await client.get("/v1/users/7")

    assert shown.text.endswith(
        '"balances":[{"currency":"JPY","balance":20},{"currency":"KWD","balance":1.500},'
        '{"currency":"USD","balance":1000.00}]}'
    )
    again = await client.post("/v1/users", json={"id": 7})
    assert again.content == shown.content


@pytest.mark.parametrize("path", ["/v1/users/404", "/v1/users/404/entries"])
async def test_an_unknown_user_is_not_found(client: httpx2.AsyncClient, path: str) -> None:
    assert problem(await client.get(path), 404, "user-not-found")["user_id"] == 404


async def test_nothing_is_deposited_to_an_unknown_user(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    problem(await a_deposit(client, user_id=404), 404, "user-not-found")
    assert await written(owner) == (0, 0, 0)

    await a_user(client, 404, "0")
    assert (await a_deposit(client, user_id=404)).status_code == 201  # the key was left free


async def test_user_ids_in_paths_have_63_bits(client: httpx2.AsyncClient) -> None:
    for user_id in ("0", "-1", str(2**63), "9" * 400, "x", "1.5", "true", "%00", "1e1"):
        for answer in (
            await client.get(f"/v1/users/{user_id}"),
            await client.get(f"/v1/users/{user_id}/entries"),
            await client.post(f"/v1/users/{user_id}/deposits", json={}),
        ):
            refused = problem(answer, 422, "validation")
            assert refused["errors"][0]["field"] == "user_id"


async def test_the_largest_user_id_can_be_used(client: httpx2.AsyncClient) -> None:
    largest = await a_user(client, 2**63 - 1)
    shown = await client.get(f"/v1/users/{largest}")
    assert shown.json()["id"] == largest
    assert len((await client.get(f"/v1/users/{largest}/entries")).json()["data"]) == 1


async def test_a_deposit_is_answered_with_its_id_and_balance(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="50")

    answer = await a_deposit(client, 100)

    assert answer.status_code == 201
    deposit_id = answer.json()["id"]
    assert UUID(deposit_id).version == 7
    assert answer.text == (
        f'{{"id":"{deposit_id}","user_id":1,"amount":100.00,"currency":"USD","new_balance":150.00}}'
    )


async def test_a_deposit_sent_again_is_made_once(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await a_user(client, amount="0")

    first = await a_deposit(client, 100)
    await deposit(client, 1, "7")
    again = await a_deposit(client, "100.00", key=KEY.upper())

    assert (first.status_code, again.status_code) == (201, 201)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == first.content
    assert (await written(owner))[1] == 2
    assert (await client.get("/v1/users/1")).json()["balances"][0]["balance"] == 107


async def test_without_a_key_each_deposit_is_one_of_its_own(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="0")
    first, second = await a_deposit(client, key=None), await a_deposit(client, key=None)
    assert first.json()["id"] != second.json()["id"]
    assert second.json()["new_balance"] == 200


async def test_a_deposits_key_in_its_body_is_not_dropped_in_silence(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client, amount="0")
    body = {"amount": 1, "currency": "USD", "idempotency_key": "k"}
    refused = await client.post("/v1/users/1/deposits", json=body)
    assert (refused.status_code, refused.json()["code"]) == (400, "idempotency-key-invalid")


@pytest.mark.parametrize(
    ("user_id", "body", "mismatched"),
    [
        (2, {"amount": 100, "currency": "USD"}, ["user_id"]),
        (1, {"amount": 101, "currency": "USD"}, ["amount"]),
        (1, {"amount": 100, "currency": "EUR"}, ["currency"]),
        (2, {"amount": 1, "currency": "JPY"}, ["amount", "currency", "user_id"]),
    ],
)
async def test_a_deposit_key_means_one_deposit(
    client: httpx2.AsyncClient, user_id: int, body: dict[str, object], mismatched: list[str]
) -> None:
    await a_user(client, 1, "0")
    await a_user(client, 2, "0")
    await a_deposit(client, 100)

    answer = await client.post(f"/v1/users/{user_id}/deposits", json=body, headers=keyed(KEY))

    refused = problem(answer, 422, "idempotency-key-reused")
    assert refused["mismatched_fields"] == mismatched


async def test_deposit_keys_are_apart_from_charge_keys_and_other_merchants(
    client: httpx2.AsyncClient, db: Db
) -> None:
    await a_user(client, amount="0")
    theirs = await a_key(db, "theirs")
    body = {"amount": 100, "currency": "USD"}

    await a_deposit(client, 100)
    charged = await charge(client, 100, headers=keyed(KEY))
    other = await client.post("/v1/users/1/deposits", json=body, headers=keyed(KEY) | theirs)

    assert charged.status_code == 200
    assert "idempotent-replayed" not in charged.headers
    assert other.status_code == 201
    assert "idempotent-replayed" not in other.headers


async def test_a_deposit_key_is_any_visible_ascii(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="0")
    for key in ("order-1", "!", "~" * 255):
        assert (await a_deposit(client, 1, key=key)).status_code == 201
        again = await a_deposit(client, 1, key=key)
        assert again.headers["idempotent-replayed"] == "true"
    for key in ("", " ", "a b", "~" * 256):
        problem(await a_deposit(client, 1, key=key), 400, "idempotency-key-invalid")
    repeated = httpx2.Headers([("idempotency-key", "a"), ("idempotency-key", "a")])
    body = {"amount": 1, "currency": "USD"}
    answer = await client.post("/v1/users/1/deposits", json=body, headers=repeated)
    problem(answer, 400, "idempotency-key-invalid")


async def test_a_statement_tells_each_amount_and_the_balance_after_it(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client, amount="1000")
    charged = (await charge(client, 100)).json()["transaction"]["id"]
    deposited = (await a_deposit(client, "0.5")).json()["id"]

    answer = await client.get("/v1/users/1/entries")

    newest, middle, oldest = answer.json()["data"]
    assert answer.text.startswith(
        f'{{"data":[{{"posting_id":"{deposited}","kind":"deposit","counterparty":"world",'
        '"amount":0.50,"currency":"USD","balance_after":900.50,"version":3,"created_at":"'
    )
    assert newest["created_at"].endswith("Z")
    assert middle["posting_id"] == charged
    assert (middle["kind"], middle["counterparty"]) == ("charge", "merchant:default")
    assert (middle["amount"], middle["balance_after"]) == (-100, 900)
    assert (oldest["amount"], oldest["balance_after"], oldest["version"]) == (1000, 1000, 1)
    assert answer.json()["has_more"] is False


async def test_a_statement_adds_up_over_all_its_pages(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="100")
    for amount in ("0.1", "0.2", "19.99", "3"):
        await charge(client, amount)
    balance = Decimal(0)
    pages = await statement_pages(client, "/v1/users/1/entries")
    for entry in reversed([entry for page in pages for entry in page]):
        balance += Decimal(str(entry["amount"]))
        assert Decimal(str(entry["balance_after"])) == balance
    assert [len(page) for page in pages] == [2, 2, 1]
    assert balance == Decimal("76.71")


async def test_a_statement_of_two_currencies_can_be_narrowed_to_one(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client, amount="10", currency="USD")
    await a_user(client, amount="20", currency="JPY")
    await charge(client, 1, "USD")

    both = (await client.get("/v1/users/1/entries")).json()["data"]
    yen = (await client.get("/v1/users/1/entries?currency=JPY")).json()["data"]
    none = (await client.get("/v1/users/1/entries?currency=EUR")).json()["data"]

    assert [entry["currency"] for entry in both] == ["USD", "JPY", "USD"]
    assert [(entry["currency"], entry["balance_after"]) for entry in yen] == [("JPY", 20)]
    assert none == []
    problem(await client.get("/v1/users/1/entries?currency=yen"), 422, "validation")


async def test_a_user_without_money_has_an_empty_statement(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="0")
    answer = await client.get("/v1/users/1/entries")
    assert answer.json() == {"data": [], "has_more": False, "next_cursor": None}
