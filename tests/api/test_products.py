"""Products over HTTP: kept by administrators, seen by everybody."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from tests.api.steps import problem
from tests.conftest import client_of, serving
from tests.integration.catalog.shop import history
from tests.processes import ADMIN_SECRET

from picopay.infra.settings import Settings

ADMIN: Final = {"X-Admin-Secret": ADMIN_SECRET}
SHAPE: Final = [
    *("id", "name", "price", "currency", "stock", "is_active", "created_at", "updated_at")
]


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """With the admin secret and without an API key."""
    async with client_of(app) as client:
        del client.headers["X-API-Key"]
        client.headers.update(ADMIN)
        yield client


async def add(client: httpx2.AsyncClient, **changed: object) -> dict[str, Any]:
    body = {"name": "Laptop", "price": 1500, "stock": 10, "is_active": True} | changed
    answer = await client.post("/admin/products", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def names(client: httpx2.AsyncClient, **query: str) -> list[str]:
    answer = await client.get("/products", params=query)
    assert answer.status_code == 200, answer.text
    return [product["name"] for product in answer.json()]


async def test_a_product_is_added_and_shown_to_everybody(client: httpx2.AsyncClient) -> None:
    body = {"name": "Laptop", "price": 1500, "stock": 10, "is_active": True}
    answer = await client.post("/admin/products", json=body)
    assert answer.status_code == 201
    made = answer.json()
    assert list(made) == SHAPE
    assert {name: made[name] for name in body} == body
    assert '"price":1500.00,' in answer.text
    assert made["created_at"].endswith("Z")
    assert datetime.fromisoformat(made["created_at"]) <= datetime.fromisoformat(made["updated_at"])
    del client.headers["X-Admin-Secret"]
    assert (await client.get(f"/products/{made['id']}")).json() == made
    assert (await client.get("/products")).json() == [made]


async def test_stock_and_activity_have_defaults_and_names_need_not_be_unique(
    client: httpx2.AsyncClient,
) -> None:
    answers = [
        await client.post("/admin/products", json={"name": "Pen", "price": "0"}) for _ in range(2)
    ]
    assert [(a.json()["stock"], a.json()["is_active"]) for a in answers] == [(0, True)] * 2
    assert '"price":0.00,' in answers[0].text


@pytest.mark.parametrize(
    ("price", "shown"),
    [("9999999999.99", "9999999999.99"), (0.1, "0.10"), ("19.990", "19.99"), (0, "0.00")],
)
async def test_prices_are_exact(client: httpx2.AsyncClient, price: object, shown: str) -> None:
    made = await add(client, price=price)
    assert f'"price":{shown},' in (await client.get(f"/products/{made['id']}")).text


async def test_the_shops_currency_tells_the_decimals(settings: Settings) -> None:
    async with serving(settings, shop_currency="JPY") as client:
        client.headers.update(ADMIN)
        made = await add(client, price=1500)
        assert '"price":1500,' in (await client.get(f"/products/{made['id']}")).text
        body = {"name": "Pen", "price": 1.5}
        problem(await client.post("/admin/products", json=body), 422, "validation")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": None}, "name"),
        ({"price": -0.01}, "price"),
        ({"price": 0.001}, "price"),
        ({"price": "10000000000"}, "price"),
        ({"price": True}, "price"),
        ({"price": None}, "price"),
        ({"stock": -1}, "stock"),
        ({"stock": 2**31}, "stock"),
        ({"stock": 1.5}, "stock"),
        ({"stock": "1"}, "stock"),
        ({"stock": True}, "stock"),
        ({"is_active": "yes"}, "is_active"),
    ],
)
async def test_what_is_malformed_is_told_and_not_kept(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, change: dict[str, Any], field: str
) -> None:
    body = {"name": "Laptop", "price": 1, "stock": 1, "is_active": True} | change
    told = problem(await client.post("/admin/products", json=body), 422, "validation")
    assert field in {error["field"].partition(".")[0] for error in told["errors"]}
    assert await owner.fetchval("SELECT count(*) FROM products") == 0
    made = await add(client)
    answer = await client.patch(f"/admin/products/{made['id']}", json=change)
    told = problem(answer, 422, "validation")
    assert field in {error["field"].partition(".")[0] for error in told["errors"]}
    assert (await client.get(f"/products/{made['id']}")).json() == made


async def test_the_limits_themselves_are_fine(client: httpx2.AsyncClient) -> None:
    made = await add(client, name="x" * 200, stock=2**31 - 1)
    patched = await client.patch(f"/admin/products/{made['id']}", json={"name": "é", "stock": 0})
    assert (patched.json()["name"], patched.json()["stock"]) == ("é", 0)


async def test_a_patch_changes_what_it_names_and_nothing_else(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    made = await add(client)
    path = f"/admin/products/{made['id']}"
    assert (await client.patch(path, json={})).json() == made
    shown = made
    for change in ({"name": "Notebook"}, {"price": 1.5}, {"stock": 7}, {"is_active": False}):
        answer = await client.patch(path, json=change)
        assert answer.status_code == 200
        assert answer.json() == shown | change | {"updated_at": answer.json()["updated_at"]}
        assert answer.json()["updated_at"] > shown["updated_at"]
        shown = answer.json()
    assert await history(owner, made["id"]) == [(1, 10, 10, "opened"), (2, -3, 7, "adjusted")]


async def test_an_inactive_product_is_listed_only_on_request(client: httpx2.AsyncClient) -> None:
    await add(client, name="sold")
    shelved = await add(client, name="shelved", is_active=False)
    assert await names(client) == await names(client, is_active="true") == ["sold"]
    assert await names(client, is_active="false") == ["shelved"]
    assert (await client.get(f"/products/{shelved['id']}")).json() == shelved


async def test_an_archived_product_is_seen_by_administrators_alone(
    client: httpx2.AsyncClient,
) -> None:
    made, inactive = await add(client), await add(client, is_active=False)
    path = f"/admin/products/{made['id']}"
    assert (await client.get(path)).json() == made | {"archived_at": None}
    for product in (made, inactive):
        gone = await client.delete(f"/admin/products/{product['id']}")
        assert (gone.status_code, gone.content) == (204, b"")
    assert (await client.delete(path)).status_code == 204
    assert await names(client) == await names(client, is_active="false") == []
    assert await names(client, q="laptop") == []
    problem(await client.get(f"/products/{made['id']}"), 404, "product-not-found")
    shown = (await client.get(path)).json()
    assert shown["archived_at"] == shown["updated_at"]
    problem(await client.patch(path, json={"stock": 1}), 409, "product-archived")


async def test_an_unknown_product_is_not_found(client: httpx2.AsyncClient) -> None:
    unknown = uuid4()
    for method, path in (
        ("GET", f"/products/{unknown}"),
        ("GET", f"/admin/products/{unknown}"),
        ("PATCH", f"/admin/products/{unknown}"),
        ("DELETE", f"/admin/products/{unknown}"),
    ):
        content = b"{}" if method == "PATCH" else None
        problem(await client.request(method, path, content=content), 404, "product-not-found")
    problem(await client.get("/products/nonsense"), 422, "validation")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("X-Admin-Secret", "")],
        [("X-Admin-Secret", ADMIN_SECRET[:-1])],
        [("X-Admin-Secret", ADMIN_SECRET.upper())],
        [("X-Admin-Secret", ADMIN_SECRET), ("X-Admin-Secret", ADMIN_SECRET)],
        [("X-API-Key", ADMIN_SECRET)],
        [("X-Admin-Secret", b"\xe9")],
    ],
)
async def test_without_the_secret_nothing_is_done_or_told(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, headers: list[Any]
) -> None:
    made = await add(client)
    del client.headers["X-Admin-Secret"]
    path = f"/admin/products/{made['id']}"
    for method, where, body in (
        ("POST", "/admin/products", b'{"name":"x","price":1}'),
        ("POST", "/admin/products", b"{"),
        ("GET", path, None),
        ("PATCH", path, b'{"stock":1}'),
        ("DELETE", path, None),
        ("GET", "/admin/products/nonsense", None),
    ):
        answer = await client.request(method, where, content=body, headers=headers)
        problem(answer, 401, "admin-secret-invalid")
        assert answer.headers["www-authenticate"] == "AdminSecret"
    assert await owner.fetchval("SELECT count(*) FROM products WHERE stock = 10") == 1


async def test_while_no_secret_is_set_there_is_no_administrator(settings: Settings) -> None:
    async with serving(settings, admin_secret=None) as client:
        for secret in ({}, {"X-Admin-Secret": ""}, {"X-Admin-Secret": "None"}):
            answer = await client.post("/admin/products", content=b"{}", headers=secret)
            problem(answer, 401, "admin-secret-invalid")


async def test_each_change_by_an_administrator_is_one_line_of_the_log(
    client: httpx2.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await add(client)
    path = f"/admin/products/{made['id']}"
    for change in ({"stock": 7, "price": 2}, {"stock": 7}, {}):
        await client.patch(path, json=change)
    await client.delete(path)
    await client.delete(path)
    await client.get(path, headers={"X-Admin-Secret": "wrong-secret"})
    told = capsys.readouterr().out
    lines = [line for line in told.splitlines() if "product." in line or "admin_secret" in line]
    events = ("product.created", "product.changed", "product.archived", "admin_secret.rejected")
    assert [event for line in lines for event in events if event in line] == list(events)
    assert "'stock': (10, 7)" in lines[1] or '"stock":[10,7]' in lines[1]
    assert "wrong-secret" not in told
    assert ADMIN_SECRET not in told


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("lap", ["Laptop"]),
        ("TOP", ["Laptop", "Stopper"]),
        ("o", ["100% Wool_en", "Keyboard", "Laptop", "Stopper"]),
        ("OP", ["Laptop", "Stopper"]),
        ("pt", ["Laptop"]),
        ("p", ["Laptop", "Stopper"]),
        ("100%", ["100% Wool_en"]),
        ("0%", ["100% Wool_en"]),
        ("%", ["100% Wool_en"]),
        ("_", ["100% Wool_en"]),
        ("l_e", ["100% Wool_en"]),
        ("o_l", []),
        ("_en", ["100% Wool_en"]),
        (" ", ["100% Wool_en", "Bahre, Ähre"]),
        ("\\", ["back\\slash"]),
        ("k\\s", ["back\\slash"]),
        ("ÄHRE", ["Bahre, Ähre"]),
        ("Äh", ["Bahre, Ähre"]),
        ("ä", ["Bahre, Ähre"]),
        ("'", []),
        ("zz", []),
        ("laptopx", []),
        ("", ["100% Wool_en", "Bahre, Ähre", "Keyboard", "Laptop", "Stopper", "back\\slash"]),
    ],
)
async def test_a_search_finds_parts_of_names_in_any_case(
    client: httpx2.AsyncClient, q: str, found: list[str]
) -> None:
    for name in ("Laptop", "Stopper", "Keyboard", "100% Wool_en", "back\\slash", "Bahre, Ähre"):
        await add(client, name=name)
    assert await names(client, q=q, sort_by="name", sort_desc="false") == found


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "x"},
        {"sort_by": "stock"},
        {"sort_desc": "maybe"},
        {"is_active": "maybe"},
        {"is_active": ""},
        {"q": "a\0b"},
        {"q": "x" * 201},
    ],
)
async def test_a_list_that_cannot_be_is_told(
    client: httpx2.AsyncClient, query: dict[str, str]
) -> None:
    problem(await client.get("/products", params=query), 422, "validation")
