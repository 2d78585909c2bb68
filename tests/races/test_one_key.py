"""Many requests with one idempotency key: one charge, and the same answer for all of them."""

import asyncio
from collections import Counter
from uuid import uuid4

import httpx2
import pytest
from tests.conftest import Stores
from tests.races.inprocess import balance_text, batch, charge, charge_all, new_user
from tests.races.load import Wish
from tests.races.truth import assert_each_charged_once, assert_ledger_clean, charges_of

from picopay.infra.db import Db


@pytest.mark.parametrize("requests", [10, 500])
async def test_concurrent_requests_with_one_key_charge_once_and_are_answered_alike(
    client: httpx2.AsyncClient, db: Db, stores: Stores, requests: int
) -> None:
    wish = Wish.of(await new_user(client, 1, 1000), 100)

    answers = await charge_all(client, [wish] * requests)

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    first = [answer for answer in answers if "idempotent-replayed" not in answer.headers]
    assert len(first) == 1
    assert first[0].json()["new_balance"] == 900
    await assert_each_charged_once(stores.database_url, [wish], 1000)
    await assert_ledger_clean(db)


async def test_500_charges_on_a_balance_for_100_succeed_exactly_100_times(
    client: httpx2.AsyncClient, db: Db, stores: Stores
) -> None:
    user = await new_user(client, 1, 1000)
    wishes = [Wish.of(user, 10) for _ in range(500)]

    answers = await charge_all(client, wishes)

    assert Counter(answer.status_code for answer in answers) == {200: 100, 400: 400}
    refused = [answer.json()["code"] for answer in answers if answer.status_code == 400]
    assert set(refused) == {"insufficient-balance"}
    balances = sorted(a.json()["new_balance"] for a in answers if a.status_code == 200)
    assert balances == [10 * left for left in range(100)]
    assert b'"balance":0.00' in await balance_text(client, user)
    assert (await charges_of(stores.database_url, [w.key for w in wishes])).total() == 100
    await assert_ledger_clean(db)


async def test_a_refused_charge_gives_its_key_back_to_all_who_wait_for_it(
    client: httpx2.AsyncClient, stores: Stores
) -> None:
    wish = Wish.of(await new_user(client, 1, 50), 100)
    refused = await charge_all(client, [wish] * 20)
    assert {answer.status_code for answer in refused} == {400}

    money = {"amount": 50, "currency": "USD"}
    assert (await client.post("/v1/users/1/deposits", json=money)).status_code == 201
    answers = await charge_all(client, [wish] * 20)

    assert {answer.status_code for answer in answers} == {200}
    await assert_each_charged_once(stores.database_url, [wish], 100)


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        (Wish(2, 100, "k"), ["user_id"]),
        (Wish(1, 101, "k"), ["amount"]),
        (Wish(1, 100, "k", "EUR"), ["currency"]),
        (Wish(2, 7, "k", "EUR"), ["amount", "currency", "user_id"]),
    ],
    ids=["user", "amount", "currency", "all"],
)
@pytest.mark.parametrize("racing", [False, True], ids=["later", "racing"])
async def test_one_key_for_two_requests_is_refused_with_the_fields_that_differ(
    client: httpx2.AsyncClient, stores: Stores, other: Wish, fields: list[str], *, racing: bool
) -> None:
    for user in (1, 2):
        await new_user(client, user, 1000)
    wish = Wish.of(1, 100)
    other = Wish(other.user_id, other.amount, wish.key, other.currency)

    if racing:
        answers = await charge_all(client, [wish, other] * 20)
    else:
        answers = [await charge(client, wish), await charge(client, other)]

    # EUR has no balance: such a request is refused, and leaves the key to the other.
    assert {answer.status_code for answer in answers[::2]} <= {200, 422}
    lost = [answer.json() for answer in answers if answer.status_code == 422]
    assert lost
    assert {tuple(problem["mismatched_fields"]) for problem in lost} == {tuple(fields)}
    assert {problem["code"] for problem in lost} == {"idempotency-key-reused"}
    assert (await charges_of(stores.database_url, [wish.key])).total() == 1


async def test_racing_requests_of_two_users_with_one_key_are_never_both_charged(
    client: httpx2.AsyncClient, db: Db, stores: Stores
) -> None:
    for user in (1, 2):
        await new_user(client, user, 1000)
    for _ in range(20):
        key = str(uuid4())
        answers = await charge_all(client, [Wish(1, 5, key), Wish(2, 5, key)] * 10)
        winner = answers[0].status_code == 200
        assert {a.status_code for a in answers[::2]} == {200 if winner else 422}
        assert {a.status_code for a in answers[1::2]} == {422 if winner else 200}
        lost = answers[1 if winner else 0].json()
        assert lost["mismatched_fields"] == ["user_id"]
        assert (await charges_of(stores.database_url, [key])).total() == 1
    await assert_ledger_clean(db)


async def test_twins_inside_one_batch_request_charge_once(
    client: httpx2.AsyncClient, stores: Stores
) -> None:
    user = await new_user(client, 1, 1000)
    wishes = [Wish.of(user, 10) for _ in range(5)]
    changed = Wish(user, 11, wishes[0].key)

    results = await batch(client, [*wishes, *wishes, changed])

    assert [result["status"] for result in results[:5]] == ["success"] * 5
    assert [result["status"] for result in results[5:10]] == ["replayed"] * 5
    for first, again in zip(results[:5], results[5:10], strict=True):
        assert first["transaction"] == again["transaction"]
        assert first["new_balance"] == again["new_balance"]
    assert results[10]["status"] == "declined"
    assert results[10]["problem"]["mismatched_fields"] == ["amount"]
    await assert_each_charged_once(stores.database_url, wishes, 1000)


async def test_duplicates_across_concurrent_batches_and_single_requests_charge_once(
    client: httpx2.AsyncClient, db: Db, stores: Stores
) -> None:
    user = await new_user(client, 1, 10_000)
    wishes = [Wish.of(user, 10) for _ in range(600)]  # more than two chunks

    *batches, singles = await asyncio.gather(
        batch(client, wishes),
        batch(client, wishes[::-1]),
        batch(client, wishes[300:] + wishes[:300]),
        charge_all(client, wishes[250:350]),
    )

    made = Counter(result["status"] for results in batches for result in results)
    fresh = [answer for answer in singles if "idempotent-replayed" not in answer.headers]
    assert {answer.status_code for answer in singles} == {200}
    assert set(made) == {"success", "replayed"}
    assert made["success"] + len(fresh) == 600
    await assert_each_charged_once(stores.database_url, wishes, 10_000)
    await assert_ledger_clean(db)
