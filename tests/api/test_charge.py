"""`POST /charge`: the contract of an answer, of its replay and of its refusals."""

import re
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest
from redis.asyncio import Redis
from tests.api.steps import a_key, a_user, charge, deposit, keyed, problem, written
from tests.conftest import Stores

from picopay.infra.db import Db

KEY = "0198c0de-0000-7000-8000-00000000abcd"


async def flush(stores: Stores) -> None:
    redis: Redis = Redis.from_url(stores.redis_url)  # pyright: ignore[reportUnknownMemberType] - its own **kwargs
    await redis.execute_command("FLUSHDB")  # pyright: ignore[reportUnknownMemberType] - likewise
    await redis.aclose()


async def test_the_answer_has_exactly_the_members_of_the_contract_in_order(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client, amount="1000")

    answer = await charge(client, 100.0, headers=keyed(KEY))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    charge_id = answer.json()["transaction"]["id"]
    assert UUID(charge_id).version == 7
    assert answer.text == (
        '{"message":"Charge processed successfully","transaction":{'
        f'"id":"{charge_id}","user_id":1,"amount":100.00,"currency":"USD",'
        f'"status":"success","idempotency_key":"{KEY}"}},"new_balance":900.00}}'
    )


async def test_without_a_key_each_request_is_a_charge_of_its_own(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client)

    first, second = await charge(client), await charge(client)

    assert first.json()["transaction"]["idempotency_key"] is None
    assert first.json()["transaction"]["id"] != second.json()["transaction"]["id"]
    assert second.json()["new_balance"] == 800


@pytest.mark.parametrize(
    ("currency", "deposited", "amount", "balance"),
    [
        ("USD", "1000", "100.00", "900.00"),
        ("USD", "0.30", "0.10", "0.20"),
        ("JPY", "1000", "100", "900"),
        ("KWD", "2.468", "1.234", "1.234"),
        ("CLF", "2.0000", "0.0001", "1.9999"),
    ],
)
async def test_amounts_are_numbers_with_the_currencys_own_decimals(
    client: httpx2.AsyncClient, currency: str, deposited: str, amount: str, balance: str
) -> None:
    await a_user(client, amount=deposited, currency=currency)

    answer = await charge(client, float(amount), currency)

    assert f'"amount":{amount},"currency":"{currency}"' in answer.text
    assert answer.text.endswith(f'"new_balance":{balance}}}')


async def test_a_replay_is_the_same_bytes_with_a_header_that_says_so(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await a_user(client)

    first = await charge(client, headers=keyed(KEY))
    again = await charge(client, headers=keyed(KEY))

    assert "idempotent-replayed" not in first.headers
    assert again.status_code == 200
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.content == first.content
    assert (await written(owner))[0] == 1


async def test_a_replay_does_not_depend_on_redis(
    client: httpx2.AsyncClient, stores: Stores, owner: asyncpg.Connection
) -> None:
    await a_user(client)
    first = await charge(client, headers=keyed(KEY))
    await flush(stores)

    from_postgresql = await charge(client, headers=keyed(KEY))

    assert from_postgresql.content == first.content
    assert from_postgresql.headers["idempotent-replayed"] == "true"
    assert (await written(owner))[0] == 1


@pytest.mark.parametrize("flushed", [False, True])
async def test_a_replay_tells_the_balance_of_the_original_not_of_now(
    client: httpx2.AsyncClient, stores: Stores, *, flushed: bool
) -> None:
    await a_user(client, amount="1000")
    first = await charge(client, 100, headers=keyed(KEY))
    await charge(client, 50)
    if flushed:
        await flush(stores)

    again = await charge(client, 100, headers=keyed(KEY))

    assert again.content == first.content
    assert again.json()["new_balance"] == 900
    assert (await client.get("/v1/users/1")).json()["balances"][0]["balance"] == 850


async def test_a_replay_may_spell_the_amount_and_the_id_otherwise(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client)
    first = await charge(client, 100, headers=keyed(KEY))

    for body in (
        '{"currency": "USD", "user_id": 1, "amount": 100.00}',
        '{"user_id": "1", "amount": "100", "currency": "USD"}',
        '{"user_id": 1, "amount": 1e2, "currency": "USD", "note": "ignored"}',
    ):
        again = await client.post("/charge", content=body, headers=keyed(KEY))
        assert again.content == first.content
        assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    "spelling",
    [
        KEY.upper(),
        KEY.replace("-", ""),
        f"{{{KEY}}}",
        f"urn:uuid:{KEY}",
        f"urn:uuid:{KEY.upper()}",
    ],
)
async def test_every_spelling_of_a_uuid_is_one_key(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, spelling: str
) -> None:
    await a_user(client)

    first = await charge(client, headers=keyed(spelling))
    again = await charge(client, headers=keyed(KEY))

    assert first.json()["transaction"]["idempotency_key"] == KEY
    assert again.content == first.content
    assert (await written(owner))[0] == 1


@pytest.mark.parametrize(
    "values",
    [
        [""],
        [" "],
        [KEY, KEY],
        [KEY, str(uuid4())],
        [f"{KEY}, {KEY}"],
        ["not-a-uuid"],
        ["null"],
        [KEY[:-1]],
        [KEY + "0"],
        [KEY.replace("c", "g")],
        ["é" * 32],
        ["x" * 8000],
    ],
)
async def test_a_key_that_is_not_one_uuid_is_refused(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, values: list[str]
) -> None:
    await a_user(client)
    before = await written(owner)
    headers = httpx2.Headers([(b"idempotency-key", value.encode()) for value in values])

    answer = await client.post(
        "/charge", json={"user_id": 1, "amount": 1, "currency": "USD"}, headers=headers
    )

    problem(answer, 400, "idempotency-key-invalid")
    assert await written(owner) == before


@pytest.mark.parametrize(
    "text",
    [
        "0x98c0de000070008000000000abcd00",
        "+198c0de000070008000000000000abc",
        "0198_c0de_0000_7000_8000_0000_00",
    ],
)
async def test_what_only_python_reads_as_hexadecimal_is_no_uuid(
    client: httpx2.AsyncClient, text: str
) -> None:
    assert len(text) == 32
    await a_user(client)
    problem(await charge(client, headers=keyed(text)), 400, "idempotency-key-invalid")


@pytest.mark.parametrize(
    ("members", "headers"),
    [
        ({"idempotency_key": KEY}, {}),
        ({"idempotencyKey": KEY}, {}),
        ({}, {"X-Idempotency-Key": KEY}),
        ({}, {"Idempotency_Key": KEY}),
    ],
)
async def test_a_key_where_nobody_looks_for_it_is_not_dropped_in_silence(
    client: httpx2.AsyncClient, members: dict[str, str], headers: dict[str, str]
) -> None:
    await a_user(client)
    body = {"user_id": 1, "amount": 1, "currency": "USD", **members}
    refused = await client.post("/charge", json=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "idempotency-key-invalid")
    assert (await client.get("/v1/charges")).json()["data"] == []
    elsewhere = await client.post("/charge", json=body, headers=headers | keyed(str(uuid4())))
    assert elsewhere.status_code == 200


async def test_a_charge_beyond_the_balance_writes_nothing_and_leaves_its_key_free(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await a_user(client, amount="50")
    before = await written(owner)

    for _ in range(2):
        refused = problem(
            await charge(client, 100, headers=keyed(KEY)), 400, "insufficient-balance"
        )
        assert (refused["balance"], refused["required"], refused["currency"]) == (50, 100, "USD")
    assert await written(owner) == before

    await deposit(client, 1, "50")
    answer = await charge(client, 100, headers=keyed(KEY))
    assert answer.status_code == 200
    assert "idempotent-replayed" not in answer.headers
    assert answer.json()["new_balance"] == 0


async def test_a_refused_key_may_next_mean_another_charge(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="50")
    problem(await charge(client, 100, headers=keyed(KEY)), 400, "insufficient-balance")

    answer = await charge(client, 20, headers=keyed(KEY))

    assert answer.status_code == 200
    assert answer.json()["new_balance"] == 30


async def test_the_whole_balance_may_be_charged_and_its_duplicate_is_no_overdraft(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client, amount="100")

    first = await charge(client, 100, headers=keyed(KEY))
    again = await charge(client, 100, headers=keyed(KEY))

    assert first.json()["new_balance"] == 0
    assert b'"new_balance":0.00' in first.content
    assert again.content == first.content


async def test_without_an_account_in_the_currency_the_balance_is_zero(
    client: httpx2.AsyncClient,
) -> None:
    await a_user(client, amount="1000", currency="USD")

    answer = await charge(client, 5, "EUR", headers=keyed())

    refused = problem(answer, 400, "insufficient-balance")
    assert b'"balance":0.00' in answer.content
    assert refused["currency"] == "EUR"


async def test_a_user_without_any_account_has_balance_zero(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="0")
    problem(await charge(client, 5), 400, "insufficient-balance")


async def test_an_unknown_user_is_not_found(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    refused = problem(await charge(client, user_id=404, headers=keyed()), 404, "user-not-found")

    assert refused["user_id"] == 404
    assert await written(owner) == (0, 0, 0)


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize(
    ("other", "mismatched"),
    [
        ({"user_id": 2}, ["user_id"]),
        ({"user_id": 404}, ["user_id"]),
        ({"amount": 100.01}, ["amount"]),
        ({"amount": 999999}, ["amount"]),
        ({"currency": "EUR"}, ["currency"]),
        ({"user_id": 2, "amount": 5, "currency": "JPY"}, ["amount", "currency", "user_id"]),
    ],
)
async def test_a_key_reused_for_something_else_is_refused_naming_the_fields(
    client: httpx2.AsyncClient,
    stores: Stores,
    other: dict[str, object],
    mismatched: list[str],
    *,
    flushed: bool,
) -> None:
    await a_user(client, 1)
    await a_user(client, 2)
    first = await charge(client, 100, headers=keyed(KEY))
    if flushed:
        await flush(stores)

    body = {"user_id": 1, "amount": 100, "currency": "USD"} | other
    answer = await client.post("/charge", json=body, headers=keyed(KEY))

    refused = problem(answer, 422, "idempotency-key-reused")
    assert refused["mismatched_fields"] == mismatched
    assert first.json()["transaction"]["id"] not in answer.text  # nothing of the first is told
    assert (await charge(client, 100, headers=keyed(KEY))).content == first.content


async def test_two_merchants_may_use_one_key_and_learn_nothing_of_each_other(
    client: httpx2.AsyncClient, db: Db, owner: asyncpg.Connection
) -> None:
    await a_user(client, amount="1000")
    ours, theirs = await a_key(db, "ours"), await a_key(db, "theirs")

    first = await charge(client, 100, headers=keyed(KEY) | ours)
    second = await charge(client, 30, headers=keyed(KEY) | theirs)
    again = await charge(client, 100, headers=keyed(KEY) | ours)

    assert first.status_code == second.status_code == 200
    assert "idempotent-replayed" not in second.headers
    assert second.json()["new_balance"] == 870
    assert again.content == first.content
    assert (await written(owner))[0] == 2


async def test_a_revoked_keys_charge_can_be_replayed_by_another_key_of_its_merchant(
    client: httpx2.AsyncClient, db: Db
) -> None:
    await a_user(client)
    old, new = await a_key(db, "shop"), await a_key(db, "shop")

    first = await charge(client, headers=keyed(KEY) | old)
    again = await charge(client, headers=keyed(KEY) | new)

    assert again.content == first.content


async def test_ids_grow_with_time(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    ids = [(await charge(client, 1)).json()["transaction"]["id"] for _ in range(5)]
    assert ids == sorted(ids)
    assert all(re.fullmatch(r"[0-9a-f-]{36}", charge_id) for charge_id in ids)
