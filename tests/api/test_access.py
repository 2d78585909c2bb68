"""Who is let in, and in which order a request is judged."""

import json

import httpx2
import pytest
from tests.api.steps import a_key, a_user, charge, keyed, problem

from picopay.access.model import Scope
from picopay.infra.db import Db

KEY = "0198c0de-0000-7000-8000-00000000abcd"


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [b"wrong"],
        [b"test-key-with-every-scop"],
        [b"test-key-with-every-scope", b"test-key-with-every-scope"],
        [b"test-key-with-every-scope", b"wrong"],
        [b"pk_live_" + b"0" * 36],
        [b"\xff\xfe"],
        [b"k" * 9000],
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/charge"), ("GET", "/v1/users/1")])
async def test_without_one_valid_api_key_nobody_is_let_in(
    client: httpx2.AsyncClient, values: list[bytes], method: str, path: str
) -> None:
    del client.headers["X-API-Key"]
    headers = httpx2.Headers([(b"x-api-key", value) for value in values])

    answer = await client.request(method, path, headers=headers)

    problem(answer, 401, "api-key-invalid")
    assert answer.headers["www-authenticate"] == "ApiKey"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/charge", Scope.CHARGES),
        ("POST", "/v1/charges/batch", Scope.CHARGES),
        ("GET", "/v1/charges", Scope.CHARGES),
        ("GET", f"/v1/charges/{KEY}", Scope.CHARGES),
        ("POST", "/v1/users", Scope.USERS),
        ("GET", "/v1/users/1", Scope.USERS),
        ("POST", "/v1/users/1/deposits", Scope.USERS),
        ("GET", "/v1/users/1/entries", Scope.USERS),
        ("GET", "/v1/accounts/world", Scope.LEDGER),
        ("GET", "/v1/accounts/world/entries", Scope.LEDGER),
    ],
)
async def test_a_key_without_the_scope_is_forbidden(
    client: httpx2.AsyncClient, db: Db, method: str, path: str, scope: Scope
) -> None:
    key = await a_key(db, scopes=frozenset(Scope) - {scope})

    refused = problem(await client.request(method, path, headers=key), 403, "scope-missing")

    assert refused["required_scope"] == scope


GOOD = json.dumps({"user_id": 1, "amount": 1000000, "currency": "USD"})
BAD_BODY = '{"user_id": 0}'
NOBODY = json.dumps({"user_id": 404, "amount": 1000000, "currency": "USD"})
KNOWN = keyed(KEY)
BAD_KEY = keyed("x")
NO_AUTH = {"X-API-Key": "wrong"}


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        (NO_AUTH | BAD_KEY, BAD_BODY, 401, "api-key-invalid"),
        (BAD_KEY, BAD_BODY, 422, "validation"),
        (BAD_KEY, "not json", 422, "validation"),
        (BAD_KEY, NOBODY, 400, "idempotency-key-invalid"),
        (BAD_KEY, GOOD, 400, "idempotency-key-invalid"),
        (KNOWN, NOBODY, 422, "idempotency-key-reused"),
        (KNOWN, GOOD, 422, "idempotency-key-reused"),
        ({}, NOBODY, 404, "user-not-found"),
        ({}, GOOD, 400, "insufficient-balance"),
        (NO_AUTH, "x" * 70_000, 401, "api-key-invalid"),
        (BAD_KEY, "x" * 70_000, 413, "body-too-large"),
    ],
)
async def test_the_first_thing_wrong_is_what_is_told(
    client: httpx2.AsyncClient, headers: dict[str, str], body: str, status: int, code: str
) -> None:
    """API key, size, body, idempotency key, its reuse, user, balance: in this order."""
    await a_user(client)
    await charge(client, 1, headers=KNOWN)
    problem(await client.post("/charge", content=body, headers=headers), status, code)


async def test_the_scope_is_asked_before_the_body(client: httpx2.AsyncClient, db: Db) -> None:
    key = await a_key(db, scopes=[Scope.USERS])
    answer = await client.post("/charge", content=BAD_BODY, headers=key | BAD_KEY)
    problem(answer, 403, "scope-missing")
