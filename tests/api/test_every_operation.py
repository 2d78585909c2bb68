"""Who may call what: each operation of the API's own document, by each kind of stranger."""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from tests.api.steps import EVERY_SCOPE, a_key, a_user, charge, keyed, problem
from tests.conftest import serving

from picopay.access.model import Scope
from picopay.app import create_app
from picopay.infra.db import Db
from picopay.infra.settings import Settings

# Whoever reaches the server may call these. A new one is a decision to be made here.
PUBLIC: Final = {
    "GET /",
    "GET /health",
    "GET /healthz",
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
    "GET /problems/{code}",
    "GET /products",
    "GET /products/{product_id}",
}
SIGNED: Final = {"POST /v1/webhooks/transactions", "POST /payments/callback"}
SWITCHED_OFF: Final = {
    "POST /_fake_payments",
    "GET /_fake_payments/{payment_id}",
    "POST /_fake_payments/{payment_id}/refunds",
}
ADMIN: Final = {
    "GET /orders",
    "POST /admin/products",
    "GET /admin/products/{product_id}",
    "PATCH /admin/products/{product_id}",
    "DELETE /admin/products/{product_id}",
    "GET /admin/refunds",
    "POST /admin/refunds",
}
SCOPES: Final = {
    "POST /charge": Scope.CHARGES,
    "POST /v1/charges/batch": Scope.CHARGES,
    "GET /v1/charges": Scope.CHARGES,
    "GET /v1/charges/{charge_id}": Scope.CHARGES,
    "POST /v1/charges/{charge_id}/refunds": Scope.CHARGES,
    "GET /v1/charges/{charge_id}/refunds": Scope.CHARGES,
    "POST /v1/users": Scope.USERS,
    "GET /v1/users/{user_id}": Scope.USERS,
    "POST /v1/users/{user_id}/deposits": Scope.USERS,
    "GET /v1/users/{user_id}/entries": Scope.USERS,
    "GET /v1/accounts/{owner}": Scope.LEDGER,
    "GET /v1/accounts/{owner}/entries": Scope.LEDGER,
    "GET /v1/transactions": Scope.TRANSACTIONS,
    "GET /v1/admin/dead-letters": Scope.ADMIN,
    "GET /v1/admin/dead-letters/{letter_id}": Scope.ADMIN,
    "POST /v1/admin/dead-letters/replay": Scope.ADMIN,
    "POST /v1/admin/dead-letters/discard": Scope.ADMIN,
}
# Open to a storefront, unless a setting asks for a key with the scope.
OPTIONAL: Final = {
    "GET /v1/transactions/{transaction_id}": Scope.TRANSACTIONS,
    "POST /orders": Scope.ORDERS,
    "GET /orders/{order_id}": Scope.ORDERS,
    "GET /orders/{order_id}/events": Scope.ORDERS,
    "POST /orders/{order_id}/cancel": Scope.ORDERS,
}
DECIDED: Final = {*PUBLIC, *SIGNED, *SWITCHED_OFF, *ADMIN, *SCOPES, *OPTIONAL}

NO_KEY: Final = {"X-API-Key": ""}
_VALUES: Final = {"user_id": "1", "owner": "user:1", "transaction_id": "txn_1", "code": "x"}
_ANY_ID: Final = "0198c0de-0000-7000-8000-00000000abcd"


class Operation(NamedTuple):
    name: str
    described: dict[str, Any]


def operations() -> Iterator[Operation]:
    document = create_app(Settings()).openapi()
    for path, item in document["paths"].items():
        for method, described in item.items():
            yield Operation(f"{method.upper()} {path}", described)


OPERATIONS: Final = {operation.name: operation for operation in operations()}


async def call(
    client: httpx2.AsyncClient, name: str, headers: dict[str, str], **ids: object
) -> httpx2.Response:
    """With nothing of use in its body: who is let in is asked before that."""
    method, path = name.split(" ")
    values = {**_VALUES, **{key: str(value) for key, value in ids.items()}}
    path = re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], _ANY_ID), path)
    return await client.request(method, path, headers=headers)


def test_of_every_operation_it_is_decided_who_may_call_it() -> None:
    assert set(OPERATIONS) == DECIDED


def test_the_document_tells_what_each_operation_asks_for() -> None:
    for name, operation in OPERATIONS.items():
        told = [sorted(way) for way in operation.described.get("security", ())]
        if name in ADMIN:
            assert told == [["AdminSecret"]], name
        elif name in SCOPES:
            assert told == [["ApiKey"]], name
        else:
            assert told == ([[], ["ApiKey"]] if name in OPTIONAL else []), name


@pytest.fixture
def strict(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"orders_require_api_key": True, "transactions_require_api_key": True}
    )


async def test_without_a_key_in_force_no_guarded_operation_answers(
    strict: Settings, clean: object
) -> None:
    async with serving(strict) as client:
        for name in (*SCOPES, *OPTIONAL):
            for key in ("", "wrong", "pk_live_" + "0" * 36):
                problem(await call(client, name, {"X-API-Key": key}), 401, "api-key-invalid")


async def test_a_key_opens_what_its_scope_opens_and_nothing_else(strict: Settings, db: Db) -> None:
    async with serving(strict) as client:
        for scope in Scope:
            others = await a_key(db, scopes=EVERY_SCOPE - {scope})
            own = await a_key(db, scopes=[scope])
            for name, needed in {**SCOPES, **OPTIONAL}.items():
                if needed is scope:
                    refused = problem(await call(client, name, others), 403, "scope-missing")
                    assert refused["required_scope"] == scope
                    assert (await call(client, name, own)).status_code not in (401, 403)
                else:
                    problem(await call(client, name, own), 403, "scope-missing")


async def test_no_api_key_opens_what_the_admin_secret_opens(
    client: httpx2.AsyncClient, settings: Settings
) -> None:
    secret = str(settings.admin_secret)
    for name in ADMIN:
        for wrong in ({}, {"X-Admin-Secret": ""}, {"X-Admin-Secret": secret[:-1]}):
            problem(await call(client, name, wrong), 401, "admin-secret-invalid")
        opened = await call(client, name, {"X-Admin-Secret": secret})
        assert opened.status_code not in (401, 403)


async def test_without_an_admin_secret_nobody_is_an_administrator(settings: Settings) -> None:
    async with serving(settings, admin_secret=None) as client:
        for name in ADMIN:
            for tried in ("", "None", str(settings.admin_secret)):
                answer = await call(client, name, {"X-Admin-Secret": tried})
                problem(answer, 401, "admin-secret-invalid")


async def test_without_its_signature_no_webhook_is_taken(settings: Settings) -> None:
    secrets = {"transaction_webhook_secret": "s1", "payment_webhook_secret": "s2"}
    async with serving(settings, **secrets) as client:
        for name in SIGNED:
            for signature in ({}, {"X-Signature": ""}, {"X-Signature": "0" * 64}):
                problem(await call(client, name, signature), 401, "signature-invalid")


async def test_what_is_switched_off_is_not_there(settings: Settings) -> None:
    assert settings.fake_payment_enabled is False
    async with serving(settings) as client:
        for name in SWITCHED_OFF:
            problem(await call(client, name, {}), 404, "not-found")


async def test_what_is_public_answers_without_a_key(client: httpx2.AsyncClient) -> None:
    for name in PUBLIC:
        assert (await call(client, name, NO_KEY)).status_code in (200, 404), name


async def test_another_merchants_key_meets_nothing_of_a_charge(
    client: httpx2.AsyncClient, db: Db
) -> None:
    """The other scopes reach everybody's, and say so: see `Scope`."""
    await a_user(client)
    made = (await charge(client, 7)).json()["transaction"]["id"]
    path = f"/v1/charges/{made}/refunds"
    refund = await client.post(path, json={"amount": 3}, headers=keyed())
    assert refund.status_code == 201
    others = await a_key(db, "other", [Scope.CHARGES])
    for name, scope in SCOPES.items():
        if scope is Scope.CHARGES and name.startswith("GET"):
            answer = await call(client, name, others, charge_id=made)
            assert made not in answer.text.replace(f"charge {made}", "")
            assert refund.json()["id"] not in answer.text
            assert answer.status_code in (200, 404)
            assert answer.status_code == 404 or answer.json()["data"] == []
    tried = await client.post(path, json={"amount": 1}, headers=others | keyed())
    problem(tried, 404, "charge-not-found")
    assert (await client.get(f"/v1/charges/{made}")).json()["refunded"] == 3


async def test_another_merchants_idempotency_key_is_another_key(
    client: httpx2.AsyncClient, db: Db
) -> None:
    await a_user(client)
    key = keyed()
    own = await charge(client, 7, headers=key)
    others = await charge(client, 7, headers=key | await a_key(db, "other"))
    assert "idempotent-replayed" not in others.headers
    ids = [UUID(answer.json()["transaction"]["id"]) for answer in (own, others)]
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    "path",
    [
        "/admin//products",
        "//admin/products",
        "/admin/products/",
        "/Admin/products",
        "/admin/./products",
        "/x/../admin/products",
        "/admin/products;x",
        "/admin%2fproducts",
        "/%61dmin/products",
        "/v1/users/%2e%2e/%2e%2e/admin/products",
        "/docs/vendor/../../admin/products",
        "/docs/vendor/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/docs/assets/..%2f..%2fapp.py",
    ],
)
async def test_no_spelling_of_a_path_gets_past_its_guard(
    client: httpx2.AsyncClient, app: FastAPI, path: str
) -> None:
    for method in ("GET", "POST", "HEAD"):
        answer = await client.request(method, "http://picopay" + path, json={})
        assert answer.status_code in (401, 404, 405)
