"""`POST /v1/charges/batch`: many charges in one request, each standing alone."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest
from tests.api.steps import SHAPE, a_key, a_user, charge, counted, keyed, problem, written

from picopay.infra.db import Db

PATH: Final = "/v1/charges/batch"
MIB: Final = 1024 * 1024
KEY: Final = "0198c0de-0000-7000-8000-00000000abcd"
ITEM: Final[dict[str, object]] = {"user_id": 1, "amount": 10, "currency": "USD"}


def an_item(key: object = None, **other: object) -> dict[str, object]:
    return ITEM | ({} if key is None else {"idempotency_key": key}) | other


async def batch(
    client: httpx2.AsyncClient, items: Sequence[object], headers: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    answer = await client.post(PATH, json={"charges": items}, headers=headers)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert len(results) == len(items)
    return results


def statuses(results: Sequence[dict[str, Any]]) -> list[str]:
    return [result["status"] for result in results]


async def test_results_come_in_the_order_of_the_items(client: httpx2.AsyncClient) -> None:
    for user_id in (1, 2, 3):
        await a_user(client, user_id)
    wanted = [(1 + i % 3, 1 + i) for i in range(30)]

    results = await batch(client, [an_item(user_id=u, amount=a) for u, a in wanted])

    made = [(r["transaction"]["user_id"], r["transaction"]["amount"]) for r in results]
    assert statuses(results) == ["success"] * 30
    assert made == wanted
    assert [r["new_balance"] for r in results[:6:3]] == [999, 995]


async def test_a_result_holds_what_a_single_charge_answers(client: httpx2.AsyncClient) -> None:
    await a_user(client)

    answer = await client.post(PATH, json={"charges": [an_item(KEY)]})
    single = await charge(client, 10, headers=keyed(KEY))

    assert single.headers["idempotent-replayed"] == "true"
    inner = single.text.partition('"transaction":')[2].removesuffix("}")
    assert answer.headers["content-type"] == "application/json"
    assert f'{{"status":"success","transaction":{inner}' in answer.text


async def test_earlier_items_are_charged_first(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="25")

    results = await batch(client, [an_item(), an_item(), an_item(), an_item(amount=5)])

    assert statuses(results) == ["success", "success", "declined", "success"]
    assert results[2]["problem"]["code"] == "insufficient-balance"
    assert results[2]["problem"]["balance"] == 5
    assert results[3]["new_balance"] == 0


async def test_twins_in_one_batch_are_one_charge(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await a_user(client)
    spellings = [KEY, KEY.upper(), f"{{{KEY}}}", KEY.replace("-", "")]

    results = await batch(client, [an_item(key) for key in spellings])

    assert statuses(results) == ["success", "replayed", "replayed", "replayed"]
    assert len({json.dumps(r["transaction"]) for r in results}) == 1
    assert {r["new_balance"] for r in results} == {990}
    assert (await written(owner))[0] == 1


async def test_a_twin_that_means_something_else_is_declined(client: httpx2.AsyncClient) -> None:
    await a_user(client)

    results = await batch(client, [an_item(KEY), an_item(KEY, amount=11), an_item(KEY)])

    assert statuses(results) == ["success", "declined", "replayed"]
    assert results[1]["problem"]["code"] == "idempotency-key-reused"
    assert results[1]["problem"]["mismatched_fields"] == ["amount"]


async def test_a_batch_sent_again_is_replayed_item_by_item(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    items = [an_item(str(uuid4())) for _ in range(20)]

    first, again = await batch(client, items), await batch(client, items)

    assert statuses(first) == ["success"] * 20
    assert statuses(again) == ["replayed"] * 20
    assert [r["transaction"] for r in again] == [r["transaction"] for r in first]
    assert [r["new_balance"] for r in again] == [r["new_balance"] for r in first]


async def test_batches_and_single_charges_share_their_keys(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    single = await charge(client, 10, headers=keyed(KEY))

    (result,) = await batch(client, [an_item(KEY)])

    assert result["status"] == "replayed"
    assert result["transaction"] == single.json()["transaction"]


async def test_keys_of_a_batch_belong_to_the_merchant(client: httpx2.AsyncClient, db: Db) -> None:
    await a_user(client)
    ours, theirs = await a_key(db, "ours"), await a_key(db, "theirs")

    first = await batch(client, [an_item(KEY)], ours)
    second = await batch(client, [an_item(KEY)], theirs)

    assert statuses(first) == statuses(second) == ["success"]


async def test_an_unknown_user_is_declined_and_his_neighbours_are_charged(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client)

    results = await batch(client, [an_item(), an_item(user_id=404), an_item(currency="EUR")])

    assert statuses(results) == ["success", "declined", "declined"]
    assert results[1]["problem"]["code"] == "user-not-found"
    assert results[1]["problem"]["status"] == 404
    assert results[2]["problem"]["code"] == "insufficient-balance"


MALFORMED: Final[list[tuple[object, str, str]]] = [
    (None, "validation", "body"),
    (1, "validation", "body"),
    ("charge", "validation", "body"),
    ([ITEM], "validation", "body"),
    ({}, "validation", "user_id"),
    ({"user_id": 1}, "validation", "amount"),
    (an_item(amount=0), "validation", "amount"),
    (an_item(amount=-1), "validation", "amount"),
    (an_item(amount=0.001), "validation", "amount"),
    (an_item(amount=True), "validation", "amount"),
    (an_item(amount="ten"), "validation", "amount"),
    (an_item(amount=None), "validation", "amount"),
    (an_item(currency="usd"), "validation", "currency"),
    (an_item(currency="\0"), "validation", "currency"),
    (an_item(user_id=0), "validation", "user_id"),
    (an_item(user_id=2**63), "validation", "user_id"),
    (an_item(KEY, amount=0), "validation", "amount"),
    (an_item(7), "validation", "idempotency_key"),
    (an_item(""), "idempotency-key-invalid", ""),
    (an_item("x"), "idempotency-key-invalid", ""),
    (an_item("\0" * 32), "idempotency-key-invalid", ""),
    (an_item("\u0661" * 32), "idempotency-key-invalid", ""),
    (an_item(f"urn:uu\u0131d:{KEY}"), "idempotency-key-invalid", ""),
]


async def test_malformed_items_are_rejected_in_their_places(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await a_user(client)
    items = [each for item, _, _ in MALFORMED for each in (item, ITEM)]

    answer = await client.post(
        PATH, json={"charges": items}, headers={"X-Request-ID": "malformed-items"}
    )

    results = answer.json()["results"]
    assert statuses(results[1::2]) == ["success"] * len(MALFORMED)
    for (item, code, field), result in zip(MALFORMED, results[::2], strict=True):
        refused = result["problem"]
        assert result["status"] == "rejected", item
        assert refused["code"] == code, item
        assert list(refused)[: len(SHAPE)] == SHAPE
        assert refused["request_id"] == "malformed-items"
        if field:
            assert refused["errors"][0]["field"] == field, item
    assert (await written(owner))[0] == len(MALFORMED)


async def test_a_null_key_is_no_key(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    items = [ITEM | {"idempotency_key": None}] * 2
    results = await batch(client, items)
    assert statuses(results) == ["success", "success"]
    assert results[0]["transaction"]["idempotency_key"] is None


async def test_a_key_by_another_name_is_not_dropped_in_silence(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    items = [ITEM | {"idempotency-key": KEY}, ITEM, ITEM | {"note": "rent"}]
    results = await batch(client, items)
    assert statuses(results) == ["rejected", "success", "success"]
    assert results[0]["problem"]["code"] == "idempotency-key-invalid"


async def test_a_key_in_the_header_is_refused_where_an_item_has_none(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client)
    body = {"charges": [an_item(KEY), ITEM]}
    refused = await client.post(PATH, json=body, headers=keyed(KEY))
    assert (refused.status_code, refused.json()["code"]) == (400, "idempotency-key-invalid")
    assert (await client.get("/v1/charges")).json()["data"] == []
    assert statuses(await batch(client, [an_item(KEY)], headers=keyed(KEY))) == ["success"]


async def test_a_lone_surrogate_in_a_key_is_no_5xx(client: httpx2.AsyncClient) -> None:
    content = (
        '{"charges": [{"user_id": 1, "amount": 1, "currency": "USD", "idempotency_key": "%s"}]}'
    )
    answer = await client.post(PATH, content=content.replace("%s", "\\ud800" * 32).encode())
    problem(answer, 422, "validation")


async def test_five_thousand_charges_fit_and_one_more_does_not(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await a_user(client, amount="100000")
    items = [an_item(str(UUID(int=i + 1))) for i in range(5000)]

    results = await batch(client, items)

    assert set(statuses(results)) == {"success"}
    assert results[-1]["new_balance"] == 50_000
    assert [r["transaction"]["idempotency_key"] for r in results] == [
        item["idempotency_key"] for item in items
    ]
    before = await written(owner)
    answer = await client.post(PATH, json={"charges": [*items, an_item()]})
    refused = problem(answer, 422, "validation")
    assert refused["errors"][0]["field"] == "charges"
    assert await written(owner) == before


@pytest.mark.parametrize(
    "content", ['{"charges": []}', "{}", "[]", '{"charges": {}}', '{"charges": null}', ""]
)
async def test_a_batch_without_charges_is_not_valid(
    client: httpx2.AsyncClient, content: str
) -> None:
    problem(await client.post(PATH, content=content), 422, "validation")


def padded(length: int) -> bytes:
    head = json.dumps({"charges": [ITEM]})[:-1] + ', "padding": "'
    return (head + "x" * (length - len(head) - 2) + '"}').encode()


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """Sent as chunks, without a Content-Length."""
    for start in range(0, len(content), 65_536):
        yield content[start : start + 65_536]


async def test_a_mebibyte_is_taken_and_a_byte_more_is_not(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await a_user(client)

    taken = [
        await client.post(PATH, content=padded(MIB)),
        await client.post(PATH, content=pieces(padded(MIB))),
    ]
    refused = [
        await client.post(PATH, content=padded(MIB + 1)),
        await client.post(PATH, content=pieces(padded(MIB + 1))),
    ]

    assert [answer.status_code for answer in taken] == [200, 200]
    for answer in refused:
        problem(answer, 413, "body-too-large")
    assert (await written(owner))[0] == 2


@pytest.mark.parametrize("path", ["/charge", "/v1/users", "/v1/users/1/deposits"])
async def test_elsewhere_64_kibibytes_are_the_limit(client: httpx2.AsyncClient, path: str) -> None:
    large = b"x" * (64 * 1024 + 1)
    problem(await client.post(path, content=large), 413, "body-too-large")
    problem(await client.post(path, content=pieces(large)), 413, "body-too-large")
    problem(await client.post(path, content=large[:-1]), 422, "validation")


async def test_each_item_counts_by_its_own_status(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="20")
    before = await counted(client)
    poor, unknown = an_item(amount=1000), an_item(user_id=404)

    await batch(client, [an_item(KEY), an_item(KEY), an_item(KEY), poor, poor, unknown, None, {}])

    after = await counted(client)
    assert {name: after[name] - before[name] for name in after} == {
        "success": 1,
        "idempotent_hit": 2,
        "insufficient_balance": 2,
        "failed": 3,
    }


async def test_a_batch_refused_as_a_whole_counts_no_charge(client: httpx2.AsyncClient) -> None:
    before = await counted(client)
    await client.post(PATH, content="no json")
    await client.post(PATH, json={"charges": []}, headers={"X-API-Key": "wrong"})
    assert await counted(client) == before
