"""`/v1/charges/{id}/refunds`: the contract of an answer, of its replay and of its refusals."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest
from tests.api.steps import a_key, a_user, charge, keyed, problem, samples

from picopay.access.model import Scope
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.ledger import service as ledger
from picopay.ledger.model import AccountId, Move, PostingKind
from picopay.ledger.rules import Book

KEY = "0198c0de-0000-7000-8000-00000000abcd"


async def a_charge(
    client: httpx2.AsyncClient, amount: float | str = 100, currency: str = "USD"
) -> str:
    """The path of a new charge's refunds, of user 1, who has 1000."""
    await a_user(client, currency=currency)
    made = await charge(client, amount, currency)
    assert made.status_code == 200, made.text
    return f"/v1/charges/{made.json()['transaction']['id']}/refunds"


async def refund(
    client: httpx2.AsyncClient, path: str, key: str | None = None, **body: object
) -> httpx2.Response:
    return await client.post(path, json=body, headers=keyed(key))


async def balance(client: httpx2.AsyncClient, owner: str) -> float:
    shown = (await client.get(f"/v1/accounts/{owner}")).json()
    return shown["balances"][0]["balance"]


async def refunds(owner: asyncpg.Connection) -> tuple[int, int, int]:
    """How many rows, postings and keys of refunds there are."""
    row = await owner.fetchrow(
        "SELECT (SELECT count(*) FROM charge_refunds),"
        " (SELECT count(*) FROM postings WHERE kind = 'refund'),"
        " (SELECT count(*) FROM idempotency_keys WHERE operation = 'refund')"
    )
    assert row is not None
    return row[0], row[1], row[2]


async def test_the_answer_has_exactly_the_members_of_the_contract_in_order(
    client: httpx2.AsyncClient,
) -> None:
    path = await a_charge(client, 100)
    charge_id = path.split("/")[3]

    answer = await refund(client, path, amount="40.5", reason="arrived late — désolé")

    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    assert "idempotent-replayed" not in answer.headers
    shown = answer.json()
    assert UUID(shown["id"]).version == 7
    assert shown["created_at"].endswith("Z")
    assert answer.text == (
        f'{{"id":"{shown["id"]}","charge_id":"{charge_id}","amount":40.50,"currency":"USD",'
        '"reason":"arrived late — désolé","status":"succeeded","charge_refunded":40.50,'
        f'"created_at":"{shown["created_at"]}"}}'
    )
    assert await balance(client, "user:1") == 940.5
    assert await balance(client, "merchant:default") == 59.5


async def test_without_an_amount_all_that_is_left_is_refunded(client: httpx2.AsyncClient) -> None:
    path = await a_charge(client, 100)
    await refund(client, path, amount=30)
    rest = (await refund(client, path)).json()
    assert (rest["amount"], rest["charge_refunded"], rest["reason"]) == (70, 100, None)
    assert await balance(client, "user:1") == 1000


@pytest.mark.parametrize(
    ("currency", "amount", "shown"),
    [("JPY", 5, "5"), ("KWD", "1.234", "1.234"), ("USD", 5, "5.00")],
)
async def test_amounts_read_with_the_currencys_decimals(
    client: httpx2.AsyncClient, currency: str, amount: float | str, shown: str
) -> None:
    path = await a_charge(client, 10, currency)
    answer = await refund(client, path, amount=amount)
    assert f'"amount":{shown},"currency":"{currency}"' in answer.text
    assert f'"charge_refunded":{shown},' in answer.text


async def test_a_charge_shows_how_much_of_it_was_refunded(client: httpx2.AsyncClient) -> None:
    path = await a_charge(client, 100)
    one = path.removesuffix("/refunds")
    assert (await client.get(one)).json()["refunded"] == 0
    await refund(client, path, amount=30)
    await refund(client, path, amount="0.5")
    assert '"refunded":30.50,' in (await client.get(one)).text
    (listed,) = (await client.get("/v1/charges")).json()["data"]
    assert listed == (await client.get(one)).json()


async def test_a_charge_that_was_refunded_is_replayed_as_it_was_answered(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client)
    first = await charge(client, 100, headers=keyed(KEY))
    path = f"/v1/charges/{first.json()['transaction']['id']}/refunds"
    await refund(client, path, KEY)  # an operation of its own: the key is free for it
    again = await charge(client, 100, headers=keyed(KEY))
    assert again.content == first.content
    assert await balance(client, "user:1") == 1000


async def test_the_statement_shows_the_refund(client: httpx2.AsyncClient) -> None:
    path = await a_charge(client, 100)
    made = (await refund(client, path, amount=40)).json()
    entry = (await client.get("/v1/users/1/entries")).json()["data"][0]
    assert entry["posting_id"] == made["id"]
    assert (entry["kind"], entry["counterparty"]) == ("refund", "merchant:default")
    assert (entry["amount"], entry["balance_after"]) == (40, 940)


@pytest.mark.parametrize("body", [{}, {"amount": 40}, {"amount": "40.00", "reason": "late"}])
async def test_a_replay_is_the_first_answer_to_the_byte(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, body: dict[str, Any]
) -> None:
    path = await a_charge(client, 100)
    first = await refund(client, path, KEY, **body)
    await refund(client, path)  # whatever becomes of the charge later
    again = await refund(client, path, KEY.upper().replace("-", ""), **body)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.content == first.content
    made = 1 if body == {} else 2
    assert await refunds(owner) == (made, made, made)


async def test_an_amount_may_be_repeated_in_another_spelling(client: httpx2.AsyncClient) -> None:
    path = await a_charge(client, 100)
    first = await refund(client, path, KEY, amount=40)
    again = await refund(client, path, KEY, amount="4e1", reason=None)
    assert again.content == first.content


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"amount": 41, "reason": "late"}, ["amount"]),
        ({"reason": "late"}, ["amount"]),
        ({"amount": 40}, ["reason"]),
        ({"reason": "other"}, ["amount", "reason"]),
        ({"amount": 4000, "reason": "late"}, ["amount"]),
    ],
)
async def test_another_body_under_the_key_is_refused_with_what_differs(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, body: dict[str, Any], fields: list[str]
) -> None:
    path = await a_charge(client, 100)
    await refund(client, path, KEY, amount=40, reason="late")
    refused = problem(await refund(client, path, KEY, **body), 422, "idempotency-key-reused")
    assert refused["mismatched_fields"] == fields
    assert await refunds(owner) == (1, 1, 1)


async def test_the_key_of_another_charges_refund_is_refused(client: httpx2.AsyncClient) -> None:
    one, other = await a_charge(client, 100), await a_charge(client, 100)
    await refund(client, one, KEY)
    refused = problem(await refund(client, other, KEY), 422, "idempotency-key-reused")
    assert refused["mismatched_fields"] == ["charge_id"]


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": ""}, {"Idempotency-Key": "x"}])
async def test_a_refund_needs_a_key_that_is_a_uuid(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, headers: dict[str, str]
) -> None:
    path = await a_charge(client)
    answer = await client.post(path, json={}, headers=headers)
    problem(answer, 400, "idempotency-key-invalid")
    twice = [("Idempotency-Key", KEY), ("Idempotency-Key", KEY)]
    problem(await client.post(path, json={}, headers=twice), 400, "idempotency-key-invalid")
    assert await refunds(owner) == (0, 0, 0)


@pytest.mark.parametrize(("before", "asked", "left"), [(0, 100.01, 100), (60, 40.01, 40)])
async def test_more_than_is_left_is_refused_with_what_is_left(
    client: httpx2.AsyncClient,
    owner: asyncpg.Connection,
    before: float,
    asked: float,
    left: float,
) -> None:
    path = await a_charge(client, 100)
    if before:
        await refund(client, path, amount=before)
    refused = problem(await refund(client, path, KEY, amount=asked), 409, "refund-exceeds-charge")
    assert (refused["refundable"], refused["currency"]) == (left, "USD")
    # Its key is free again, and so a smaller refund may have it.
    assert (await refund(client, path, KEY, amount=left)).status_code == 201
    assert await refunds(owner) == ((2,) * 3 if before else (1,) * 3)


async def test_of_a_charge_refunded_in_full_nothing_is_left(client: httpx2.AsyncClient) -> None:
    path = await a_charge(client, 100)
    await refund(client, path)
    for body in ({}, {"amount": "0.01"}):
        refused = problem(await refund(client, path, **body), 409, "refund-exceeds-charge")
        assert refused["refundable"] == 0


async def test_a_merchant_without_the_money_is_refused_and_keeps_what_he_has(
    client: httpx2.AsyncClient, db: Db, owner: asyncpg.Connection
) -> None:
    path = await a_charge(client, 100)
    await _take_away(db, 7000)
    refused = problem(
        await refund(client, path, KEY, amount=31), 409, "merchant-balance-insufficient"
    )
    told = refused["balance"], refused["required"], refused["currency"]
    assert told == (30, 31, "USD")
    assert await refunds(owner) == (0, 0, 0)
    assert await balance(client, "user:1") == 900
    assert (await client.get(path.removesuffix("/refunds"))).json()["refunded"] == 0
    assert (await refund(client, path, KEY, amount=30)).status_code == 201


async def _take_away(db: Db, minor: int) -> None:
    """Money leaves the merchant's account, as a payout would take it."""
    merchant, world = AccountId("merchant:default", "USD"), AccountId("world", "USD")
    async with db.begin() as tx:
        book = Book(await ledger.lock_or_open(tx, [merchant, world]))
        book.post(Move(new_id(), PostingKind.TRANSFER, merchant, world, minor))
        await ledger.write(tx, book)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        *(({"amount": amount}, "amount") for amount in (0, -1, "0", "0.001", 1.001, 10**14)),
        *(({"amount": amount}, "amount") for amount in ("", "x", True, [1], {"minor": 1}, "NaN")),
        *(({"reason": reason}, "reason") for reason in ("", "x" * 201, "a\0b", "a\nb", 7, ["x"])),
        ({"amuont": 1}, "amuont"),
        ({"amount": 1, "currency": "EUR"}, "currency"),
        ([], "body"),
        (None, "body"),
    ],
)
async def test_a_body_that_means_nothing_is_not_valid(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, body: object, field: str
) -> None:
    path = await a_charge(client)
    answer = await client.post(path, content=json.dumps(body), headers=keyed())
    assert problem(answer, 422, "validation")["errors"][0]["field"] == field
    assert await refunds(owner) == (0, 0, 0)


@pytest.mark.parametrize("content", [b"", b"{", b'{"amount":1e999999}', b'{"amount":NaN}', b"\xff"])
async def test_a_body_that_is_no_json_is_not_valid(
    client: httpx2.AsyncClient, content: bytes
) -> None:
    path = await a_charge(client)
    problem(await client.post(path, content=content, headers=keyed()), 422, "validation")


async def test_an_unknown_charge_is_not_found(client: httpx2.AsyncClient) -> None:
    path = f"/v1/charges/{uuid4()}/refunds"
    problem(await refund(client, path), 404, "charge-not-found")
    problem(await client.get(path), 404, "charge-not-found")


async def test_an_id_that_is_no_uuid_is_not_valid(client: httpx2.AsyncClient) -> None:
    problem(await refund(client, "/v1/charges/x/refunds"), 422, "validation")
    problem(await client.get("/v1/charges/x/refunds"), 422, "validation")


async def test_other_merchants_charges_do_not_exist(
    client: httpx2.AsyncClient, db: Db, owner: asyncpg.Connection
) -> None:
    path = await a_charge(client)
    theirs = await a_key(db, "theirs")
    answer = await client.post(path, json={}, headers=theirs | keyed())
    problem(answer, 404, "charge-not-found")
    problem(await client.get(path, headers=theirs), 404, "charge-not-found")
    assert await refunds(owner) == (0, 0, 0)


async def test_refunds_need_a_key_with_their_scope(client: httpx2.AsyncClient, db: Db) -> None:
    path = await a_charge(client)
    scopes = await a_key(db, scopes=set(Scope) - {Scope.CHARGES})
    for headers, status, code in (
        ({"X-API-Key": ""}, 401, "api-key-invalid"),
        (scopes, 403, "scope-missing"),
    ):
        problem(await client.post(path, json={}, headers=headers | keyed()), status, code)
        problem(await client.get(path, headers=headers), status, code)


async def test_refunds_are_listed_newest_first_page_by_page(client: httpx2.AsyncClient) -> None:
    path, other = await a_charge(client, 100), await a_charge(client, 100)
    made = [(await refund(client, path, amount=n)).json() for n in (5, 1, 4, 2, 3)]
    await refund(client, other)

    shown = (await client.get(path)).json()
    assert shown == {"data": made[::-1], "has_more": False, "next_cursor": None}

    seen: list[dict[str, Any]] = []
    query: dict[str, str | int] = {"limit": 2}
    while True:
        page = (await client.get(path, params=query)).json()
        seen += page["data"]
        await refund(client, path, amount="0.01")  # what is written later stays out of later pages
        if not page["has_more"]:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


@pytest.mark.parametrize("cursor", ["x", "MA", "LTE", "dHJ1ZQ", "IngI", "MS41", "MWUzMA", "bnVsbA"])
async def test_a_tampered_cursor_is_refused(client: httpx2.AsyncClient, cursor: str) -> None:
    """Among them 0, -1, true, 1.5, 1e30 and null."""
    path = await a_charge(client)
    problem(await client.get(path, params={"cursor": cursor}), 422, "cursor-invalid")


@pytest.mark.parametrize("limit", ["0", "101", "x"])
async def test_a_limit_is_between_1_and_100(client: httpx2.AsyncClient, limit: str) -> None:
    path = await a_charge(client)
    problem(await client.get(path, params={"limit": limit}), 422, "validation")


async def test_every_answer_is_counted_once(client: httpx2.AsyncClient) -> None:
    path = await a_charge(client, 100)

    async def counted() -> dict[str, float]:
        found = await samples(client)
        names = ("succeeded", "replayed", "refused", "failed")
        return {name: found.get(f'refunds_total{{outcome="{name}"}}', 0) for name in names}

    before = await counted()
    await refund(client, path, KEY, amount=1)
    await refund(client, path, KEY, amount=1)
    await refund(client, path, amount=100)
    await refund(client, path, amount="x")
    after = await counted()
    grown = {name: after[name] - before[name] for name in after}
    assert grown == {"succeeded": 1, "replayed": 1, "refused": 2, "failed": 0}


async def test_ten_at_once_with_one_key_are_one_refund_and_one_answer(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    path = await a_charge(client, 100)
    answers = await asyncio.gather(*(refund(client, path, KEY, amount=7) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert await refunds(owner) == (1, 1, 1)
    assert await balance(client, "user:1") == 907


async def test_fifty_at_once_never_refund_more_than_the_charge(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    path = await a_charge(client, 100)
    answers = await asyncio.gather(*(refund(client, path, amount=3) for _ in range(50)))
    told = [answer.status_code for answer in answers]
    assert (told.count(201), told.count(409)) == (33, 17)
    totals = sorted(a.json()["charge_refunded"] for a in answers if a.status_code == 201)
    assert totals == [3 * n for n in range(1, 34)]
    assert await refunds(owner) == (33, 33, 33)
    assert await balance(client, "user:1") == 999
