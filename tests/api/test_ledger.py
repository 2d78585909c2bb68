"""`GET /v1/accounts/{owner}`: any owner's balances and statement."""

import httpx2
import pytest
from tests.api.steps import a_key, a_user, charge, problem, statement_pages

from picopay.infra.db import Db


async def test_the_merchants_account_holds_what_was_charged(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="1000")
    await a_user(client, amount="10", currency="JPY")
    await charge(client, 100)
    await charge(client, 7, "JPY")

    answer = await client.get("/v1/accounts/merchant:default")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == (
        '{"owner":"merchant:default","balances":[{"currency":"JPY","balance":7},'
        '{"currency":"USD","balance":100.00}]}'
    )


async def test_the_world_owes_what_was_deposited(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="1000")
    answer = await client.get("/v1/accounts/world")
    assert '"balance":-1000.00' in answer.text


async def test_all_accounts_of_a_currency_sum_to_zero(client: httpx2.AsyncClient) -> None:
    await a_user(client, 1, amount="1000")
    await a_user(client, 2, amount="5.55")
    await charge(client, "0.01", user_id=2)
    owners = ("world", "merchant:default", "user:1", "user:2")
    answers = [await client.get(f"/v1/accounts/{owner}") for owner in owners]
    balances = [answer.json()["balances"][0]["balance"] for answer in answers]
    assert round(sum(balances), 2) == 0


async def test_each_merchant_has_an_account_of_its_own(client: httpx2.AsyncClient, db: Db) -> None:
    await a_user(client, amount="1000")
    await charge(client, 30, headers=await a_key(db, "shop"))
    assert '"balance":30.00' in (await client.get("/v1/accounts/merchant:shop")).text
    problem(await client.get("/v1/accounts/merchant:default"), 404, "account-not-found")


async def test_a_statement_shows_the_other_side_of_each_charge(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="1000")
    made = (await charge(client, 100)).json()["transaction"]["id"]
    await charge(client, 50)

    newest, first = (await client.get("/v1/accounts/merchant:default/entries")).json()["data"]

    assert (newest["amount"], newest["balance_after"], newest["version"]) == (50, 150, 2)
    assert first["posting_id"] == made
    assert first["counterparty"] == "user:1"
    assert (first["amount"], first["balance_after"]) == (100, 100)


async def test_a_statement_stays_as_it_was_while_it_is_paged(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    for _ in range(5):
        await charge(client, 1)
    pages = await statement_pages(client, "/v1/accounts/merchant:default/entries")
    versions = [entry["version"] for page in pages for entry in page]
    assert versions == [5, 4, 3, 2, 1]


async def test_a_users_statement_is_the_one_of_its_owner(client: httpx2.AsyncClient) -> None:
    await a_user(client, 7)
    await charge(client, 1, user_id=7)
    by_user = await client.get("/v1/users/7/entries")
    by_owner = await client.get("/v1/accounts/user:7/entries")
    assert by_user.content == by_owner.content


@pytest.mark.parametrize("owner", ["user:404", "merchant:nobody", "external:acc_user_1", "x"])
async def test_an_owner_without_an_account_is_not_found(
    client: httpx2.AsyncClient, owner: str
) -> None:
    problem(await client.get(f"/v1/accounts/{owner}"), 404, "account-not-found")
    problem(await client.get(f"/v1/accounts/{owner}/entries"), 404, "account-not-found")


async def test_an_owner_is_visible_ascii_of_bounded_length(client: httpx2.AsyncClient) -> None:
    for owner in ("a%20b", "%00", "%C3%A9", "%F0%9F%92%B8", "x" * 201, "%ff", "a%0A"):
        for path in (f"/v1/accounts/{owner}", f"/v1/accounts/{owner}/entries"):
            refused = problem(await client.get(path), 422, "validation")
            assert refused["errors"][0]["field"] == "owner"
    problem(await client.get("/v1/accounts/" + "x" * 200), 404, "account-not-found")
