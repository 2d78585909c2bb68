"""Bodies byte by byte: charged exactly, or refused clearly with nothing written."""

import asyncio
import json
from typing import Final

import asyncpg
import httpx2
import pytest
from tests.api.steps import PROBLEM, a_user, charge, deposit, keyed, problem, written

DEEP: Final = 10_000
MAX_USD: Final = "10000000000000.00"  # 10^15 cents


def body(amount: str = "1", *, user_id: str = "1", currency: str = '"USD"') -> bytes:
    text = f'{{"user_id": {user_id}, "amount": {amount}, "currency": {currency}}}'
    return text.encode("utf-8", "surrogatepass")


async def test_a_tenth_and_two_tenths_leave_exactly_nothing(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="0.30")

    first = await charge(client, 0.1)
    second = await charge(client, 0.2)

    assert first.text.endswith('"new_balance":0.20}')
    assert second.text.endswith('"new_balance":0.00}')


async def test_three_tenths_are_three_charges_of_a_tenth(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="0.3")
    answers = [await charge(client, 0.1) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    problem(await charge(client, 0.01), 400, "insufficient-balance")


async def test_many_small_charges_leave_no_residue(client: httpx2.AsyncClient) -> None:
    await a_user(client, amount="1000")
    items = [{"user_id": 1, "amount": 0.1, "currency": "USD"}] * 1000

    answer = await client.post("/v1/charges/batch", json={"charges": items})

    assert answer.json()["results"][-1]["new_balance"] == 900
    shown = await client.get("/v1/users/1")
    assert '"balance":900.00' in shown.text


@pytest.mark.parametrize(
    ("amount", "currency", "charged"),
    [
        ("1e2", "USD", "100.00"),
        ("1E+2", "USD", "100.00"),
        ("100.000", "USD", "100.00"),
        ("100.00000000000000000000", "USD", "100.00"),
        ("1e-2", "USD", "0.01"),
        ("0.01", "USD", "0.01"),
        ('"19.99"', "USD", "19.99"),
        ('"0019.99"', "USD", "19.99"),
        ('"1e2"', "USD", "100.00"),
        ("19.99", "USD", "19.99"),
        ("9999999999999.99", "USD", "9999999999999.99"),
        ('"9999999999999.99"', "USD", "9999999999999.99"),
        ("1234567890123.45", "USD", "1234567890123.45"),
        ("10000000000000.00", "USD", MAX_USD),
        ("10000000000000", "USD", MAX_USD),
        ("1e13", "USD", MAX_USD),
        ("900", "JPY", "900"),
        ("900.0", "JPY", "900"),
        ('"900"', "JPY", "900"),
        ("123456789012345", "JPY", "123456789012345"),
        ("1.234", "KWD", "1.234"),
        ("0.001", "KWD", "0.001"),
        ("123456789012.345", "KWD", "123456789012.345"),
    ],
)
async def test_an_amount_is_charged_to_the_last_digit(
    client: httpx2.AsyncClient, amount: str, currency: str, charged: str
) -> None:
    await a_user(client, amount=charged, currency=currency)

    answer = await client.post("/charge", content=body(amount, currency=f'"{currency}"'))

    assert answer.status_code == 200, answer.text
    assert f'"amount":{charged},' in answer.text
    assert answer.json()["new_balance"] == 0


AMOUNTS_REFUSED: Final = [
    *("0", "0.00", "-0", "-0.0", "0e5", "-1", "-0.01", "-1e400", '"-1"', '"0"', '"-0"'),
    *("19.999", "0.001", "0.009999", "100.000000000000000001", '"19.999"', "1e-3", "1e-400"),
    *("1e400", "1e13000", "1e999999999999999999999", "1e-999999999999999999999", "1e14"),
    *("10000000000000.01", "10000000000001", "9" * 400, "0." + "1" * 400, '"1e400"'),
    *("NaN", "Infinity", "-Infinity", '"NaN"', '"Infinity"', '"inf"', '"sNaN"', "nan"),
    *("true", "false", "null", "[1]", "[]", "{}", '{"amount": 1}', '""', '" "'),
    *('" 1"', '"1 "', '"1,00"', '"1_000"', '"0x10"', '"$1"', '"1.2.3"', '"."', '".5"', '"1."'),
    *('"\u0661"', '"\uff11"', '"1\\u0000"', '"\\u0000"', '"\\ud800"', '"one"', '"1e"', '"++1"'),
    *("01", "+1", ".5", "1.", "1e", "0x10", "1_000", "--1", "1,5", "'1'", "", "undefined"),
    '"' + "1" * 50_000 + '"',
]


@pytest.mark.parametrize("amount", AMOUNTS_REFUSED, ids=lambda amount: amount[:30])
async def test_an_amount_that_is_no_money_is_refused(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, amount: str
) -> None:
    await a_user(client)
    before = await written(owner)

    answer = await client.post("/charge", content=body(amount), headers=keyed())

    refused = problem(answer, 422, "validation")
    assert refused["errors"]
    assert all(list(error) == ["field", "message"] for error in refused["errors"])
    assert await written(owner) == before


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("900.5", "JPY"),
        ("0.1", "JPY"),
        ("1.2345", "KWD"),
        ("0.0001", "KWD"),
        ("1000000000000001", "JPY"),
        ("1000000000000.001", "KWD"),
    ],
)
async def test_each_currency_has_its_own_smallest_unit_and_limit(
    client: httpx2.AsyncClient, amount: str, currency: str
) -> None:
    await a_user(client, currency=currency)
    answer = await client.post("/charge", content=body(amount, currency=f'"{currency}"'))
    refused = problem(answer, 422, "validation")
    assert refused["errors"][0]["field"] == "amount"


@pytest.mark.parametrize(
    "user_id",
    [
        *("0", "-1", "9223372036854775808", "1e3", "1.5", "1.0", "true", "null", "[1]", "{}"),
        *('""', '"1.5"', '"-1"', '"x"', '"0"', '"\uff11"', '"\\u0000"', "NaN"),
        *("9" * 400, '"' + "9" * 400 + '"'),
    ],
    ids=lambda user_id: user_id[:30],
)
async def test_a_user_id_is_a_whole_number_of_63_bits(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, user_id: str
) -> None:
    await a_user(client)
    before = await written(owner)
    refused = problem(
        await client.post("/charge", content=body(user_id=user_id)), 422, "validation"
    )
    assert refused["errors"][0]["field"] in {"user_id", "body"}
    problem(
        await client.post("/v1/users", content=f'{{"id": {user_id}}}'.encode()), 422, "validation"
    )
    assert await written(owner) == before


async def test_the_largest_user_id_is_charged_as_any_other(client: httpx2.AsyncClient) -> None:
    largest = 2**63 - 1
    await a_user(client, largest)
    answer = await charge(client, 1, user_id=largest)
    assert f'"user_id":{largest},' in answer.text
    assert answer.json()["transaction"]["user_id"] == largest


async def test_a_user_id_may_come_as_digits_in_a_string(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    answer = await client.post("/charge", content=body(user_id='"1"'))
    assert answer.json()["transaction"]["user_id"] == 1


@pytest.mark.parametrize(
    "currency",
    [
        *('"usd"', '"Usd"', '"USDX"', '"US"', '""', '" USD"', '"USD "', '"!!!"', '"XXX"', '"XTS"'),
        *(
            '"XAU"',
            '"XDR"',
            '"ZZZ"',
            '"\\u0000"',
            '"US\\u0000"',
            '"\\ud800"',
            '"\uff35\uff33\uff24"',
            '"$"',
        ),
        *("null", "1", "true", "[]", "{}", '["USD"]', "USD", '"' + "U" * 50_000 + '"'),
    ],
    ids=lambda currency: currency[:20],
)
async def test_a_currency_is_an_iso_4217_code_of_money(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, currency: str
) -> None:
    await a_user(client)
    before = await written(owner)
    answer = await client.post("/charge", content=body(currency=currency), headers=keyed())
    refused = problem(answer, 422, "validation")
    assert refused["errors"][0]["field"] in {"currency", "body"}
    assert len(answer.content) < 2000, "the refusal repeats what was sent"
    assert await written(owner) == before


NESTED: Final = [
    b"[" * DEEP + b"]" * DEEP,
    b"[" * 60_000,
    b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    b'{"user_id": 1, "amount": ' + b"[" * DEEP + b"]" * DEEP + b', "currency": "USD"}',
]
NO_JSON: Final = [
    b"",
    b" ",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"null",
    b"true",
    b"1",
    b"NaN",
    b'"text"',
    b"[]",
    b'[{"user_id": 1, "amount": 1, "currency": "USD"}]',
    b"{}",
    b"{",
    b"{'user_id': 1}",
    b"user_id=1&amount=1&currency=USD",
    b'{"user_id": 1, "amount": 1, "currency": "USD",}',
    b'{"user_id": 1, "amount": 1, "currency": "USD"} x',
    b'{"user_id": 1, "amount": 1, "currency": "USD"}{}',
    b'{"user_id": 1, "amount": 1, "currency": "US\xff"}',
    b'{"user_id": 1, "amount": 1, "currency": "US\x00"}',
    b'{"user_id": 1, "amount": 1, "currency": "USD\n"}',
    b'{"user_id": 1, "amount": 1, "amount": 2, "currency": "USD"}',
    b'{"user_id": 1, "user_id": 2, "amount": 1, "currency": "USD"}',
    b'{"user_id": 1, "amount": 1, "currency": "USD", "x": {"a": 1, "a": 2}}',
    json.dumps({"user_id": 1, "amount": 1, "currency": "USD"}).encode("utf-16"),
]


@pytest.mark.parametrize("content", NESTED + NO_JSON, ids=lambda content: repr(content[:40]))
async def test_a_body_that_is_not_the_right_json_is_refused(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, content: bytes
) -> None:
    for path in ("/charge", "/v1/charges/batch", "/v1/users", "/v1/users/1/deposits"):
        answer = await client.post(path, content=content)
        refused = problem(answer, 422, "validation")
        assert refused["errors"]
        assert len(answer.content) < 2000
    assert await written(owner) == (0, 0, 0)


@pytest.mark.parametrize(
    "media_type",
    [None, b"", b"text/plain", b"application/xml", b"application/x-www-form-urlencoded", b"\xe9"],
)
async def test_the_content_type_is_not_asked_for(
    client: httpx2.AsyncClient, media_type: bytes | None
) -> None:
    await a_user(client)
    headers = httpx2.Headers([] if media_type is None else [(b"content-type", media_type)])
    answer = await client.post("/charge", content=body("1"), headers=headers)
    assert answer.status_code == 200


async def test_deposits_take_amounts_by_the_same_rules(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await a_user(client, amount="0")
    for amount in AMOUNTS_REFUSED:
        content = f'{{"amount": {amount}, "currency": "USD"}}'.encode()
        answer = await client.post("/v1/users/1/deposits", content=content)
        assert answer.status_code == 422, amount[:50]
        assert answer.headers["content-type"] == PROBLEM
    assert await written(owner) == (0, 0, 0)
    await deposit(client, 1, "0.1")
    await deposit(client, 1, "0.2")
    assert '"balance":0.30' in (await client.get("/v1/users/1")).text


async def test_a_balance_never_leaves_64_bits(client: httpx2.AsyncClient) -> None:
    """Deposits of 10^15 minor units until the account says no: an answer, not an overflow."""
    await a_user(client, amount="0", currency="JPY")
    largest = {"amount": 10**15, "currency": "JPY"}
    statuses: set[int] = set()
    for _ in range(3):
        statuses.add((await client.post("/v1/users/1/deposits", json=largest)).status_code)
    assert statuses == {201}
    assert (await client.get("/v1/users/1")).json()["balances"][0]["balance"] == 3 * 10**15


async def test_totals_at_the_limit_refuse_more(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await a_user(client, amount="1", currency="JPY")
    await owner.execute("UPDATE accounts SET credits = $1 WHERE owner = 'user:1'", 2**63 - 1 - 10)
    full = {"amount": 11, "currency": "JPY"}
    refused = await client.post("/v1/users/1/deposits", json=full)
    problem(refused, 422, "account-limit")
    fits = await client.post("/v1/users/1/deposits", json={"amount": 10, "currency": "JPY"})
    assert fits.json()["new_balance"] == 2**63 - 1


async def test_a_merchant_at_the_limit_refuses_more_and_nobody_else_is_refused(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await a_user(client, amount="100", currency="JPY")
    await a_user(client, 2, amount="100", currency="USD")
    asked = {"user_id": 1, "amount": 10, "currency": "JPY"}
    assert (await client.post("/charge", json=asked)).status_code == 200
    full = "UPDATE accounts SET credits = $1 WHERE owner LIKE 'merchant:%'"
    await owner.execute(full, 2**63 - 1 - 10)
    other = {"user_id": 2, "amount": 10, "currency": "USD"}
    answers = await asyncio.gather(
        client.post("/charge", json=asked | {"amount": 11}), client.post("/charge", json=other)
    )
    problem(answers[0], 422, "account-limit")
    assert answers[1].status_code == 200
    assert (await client.post("/charge", json=asked)).status_code == 200
