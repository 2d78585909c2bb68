"""Pages of products against a plain model, while products come, change and go."""

import json
import random
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from functools import partial
from itertools import product as combinations
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx2
import pytest
from tests.api.steps import problem
from tests.integration.catalog.shop import a_new_product

from picopay.catalog import service
from picopay.catalog.model import Change, NewProduct
from picopay.infra.db import Db
from picopay.infra.routing import encode_cursor
from picopay.kernel.money import Money

PRODUCTS: Final = 120
# Few of each, so that most products tie with many others.
NAMES: Final = ("Apple", "apple", "Birne", "Ähre", "100%")
PRICES: Final = (0, 1, 999, 1000)
ORDERS: Final = tuple(combinations(("created_at", "name", "price"), ("false", "true")))
each_order = pytest.mark.parametrize(("sort_by", "sort_desc"), ORDERS)
nightly = partial(pytest.param, marks=pytest.mark.nightly)


def drawing(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - no secret


def drawn(chance: random.Random) -> NewProduct:
    return a_new_product(chance.choice(NAMES), chance.choice(PRICES), chance.randrange(3))


async def stock_up(db: Db, chance: random.Random) -> None:
    """In four transactions, so that a time of creation is shared by thirty."""
    for _ in range(4):
        await service.create(db, [drawn(chance) for _ in range(PRODUCTS // 4)])


async def everything(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """All that is listed, in whatever order."""
    return [item async for page in pages(client, limit="100") for item in page]


async def pages(client: httpx2.AsyncClient, **query: str) -> AsyncIterator[list[dict[str, Any]]]:
    """Page after page, as the links lead."""
    answer = await client.get("/products", params=query)
    while True:
        assert answer.status_code == 200, answer.text
        yield answer.json()
        if "next" not in answer.links:
            return
        answer = await client.get(answer.links["next"]["url"])


def sorted_by(items: list[dict[str, Any]], sort_by: str, sort_desc: str) -> list[str]:
    """The ids in that order: by bytes, and ties by id."""

    def key(item: dict[str, Any]) -> tuple[Any, str]:
        value = item[sort_by]
        return (value.encode() if isinstance(value, str) else value), item["id"]

    return [item["id"] for item in sorted(items, key=key, reverse=sort_desc == "true")]


@each_order
@pytest.mark.parametrize("limit", ["1", nightly("7"), "30", nightly("100")])
async def test_pages_are_the_whole_list_in_its_order(
    client: httpx2.AsyncClient, db: Db, sort_by: str, sort_desc: str, limit: str
) -> None:
    await stock_up(db, drawing(1))
    asked = {"sort_by": sort_by, "sort_desc": sort_desc, "limit": limit}
    shown = [page async for page in pages(client, **asked)]
    items = [item for page in shown for item in page]
    assert len(items) == PRODUCTS
    assert [item["id"] for item in items] == sorted_by(items, sort_by, sort_desc)
    assert {len(page) for page in shown[:-1]} <= {int(limit)}
    assert shown[-1]


@each_order
@pytest.mark.parametrize("seed", [0, nightly(1), nightly(2)])
async def test_what_does_not_change_is_shown_once_and_in_order_while_all_else_does(
    client: httpx2.AsyncClient, db: Db, sort_by: str, sort_desc: str, seed: int
) -> None:
    chance = drawing(seed)
    await stock_up(db, chance)
    before = await everything(client)
    steady = {item["id"] for item in before if chance.random() < 0.7}
    restless = [item["id"] for item in before if item["id"] not in steady]
    seen: list[str] = []
    asked = {"sort_by": sort_by, "sort_desc": sort_desc, "limit": "9"}
    async for page in pages(client, **asked):
        seen += [item["id"] for item in page]
        await service.create(db, [drawn(chance) for _ in range(2)])
        moved, gone = chance.sample(restless, 2)
        await unsettle(db, moved, chance)
        if chance.random() < 0.3:
            await service.archive(db, UUID(gone))
            restless.remove(gone)
        for steady_id in chance.sample(sorted(steady), 2):  # its stock is in no sort key
            await service.change(db, UUID(steady_id), Change(stock=chance.randrange(50)))
    wanted = [i for i in sorted_by(before, sort_by, sort_desc) if i in steady]
    assert [i for i in seen if i in steady] == wanted


async def unsettle(db: Db, product_id: str, chance: random.Random) -> None:
    """Move it to somewhere else in the list."""
    change = Change(chance.choice(NAMES), Money(chance.choice(PRICES), "USD"))
    await service.change(db, UUID(product_id), change)


@each_order
@pytest.mark.parametrize("q", ["apple", "e", "Äh", "0%"])
async def test_a_search_is_paged_like_the_list(
    client: httpx2.AsyncClient, db: Db, sort_by: str, sort_desc: str, q: str
) -> None:
    await stock_up(db, drawing(2))
    found = [item for item in await everything(client) if q.lower() in item["name"].lower()]
    asked = {"sort_by": sort_by, "sort_desc": sort_desc, "limit": "4", "q": q}
    seen = [item["id"] async for page in pages(client, **asked) for item in page]
    assert seen == sorted_by(found, sort_by, sort_desc)
    assert seen


async def test_a_search_finds_what_is_far_down_the_list(
    client: httpx2.AsyncClient, db: Db, owner: asyncpg.Connection
) -> None:
    """Beyond the products among which it looks first."""
    await service.create(db, [a_new_product(f"A{number:05}", 1) for number in range(3000)])
    await service.create(db, [a_new_product(f"Zebra {number}", 1) for number in range(3)])
    for q in ("zebra", "Ze", "z", "a 2"):
        asked = {"q": q, "sort_by": "name", "sort_desc": "false", "limit": "2"}
        seen = [item["name"] async for page in pages(client, **asked) for item in page]
        assert seen == (["Zebra 2"] if q == "a 2" else ["Zebra 0", "Zebra 1", "Zebra 2"])


async def test_a_cursor_keeps_names_of_any_length_and_language(
    client: httpx2.AsyncClient, db: Db
) -> None:
    long = "\U0001f600" * 200
    await service.create(db, [a_new_product(name) for name in (long, '"' * 200, "\x01" * 200)])
    names = [
        item["name"] async for page in pages(client, sort_by="name", limit="1") for item in page
    ]
    assert names == [long, '"' * 200, "\x01" * 200]


async def test_the_last_page_leads_nowhere_even_if_it_is_full(
    client: httpx2.AsyncClient, db: Db
) -> None:
    await service.create(db, [a_new_product() for _ in range(4)])
    first = await client.get("/products", params={"limit": "2"})
    last = await client.get(first.links["next"]["url"])
    assert (len(first.json()), len(last.json())) == (2, 2)
    assert "link" not in last.headers
    assert "link" not in (await client.get("/products", params={"q": "none"})).headers


async def test_the_link_keeps_the_whole_question(client: httpx2.AsyncClient, db: Db) -> None:
    new = [a_new_product("50% & more", is_active=False) for _ in range(3)]
    await service.create(db, new)
    asked = {"q": "% & m", "is_active": "false", "sort_by": "price", "sort_desc": "false"}
    answer = await client.get("/products", params=asked | {"limit": "1"})
    url = httpx2.URL(answer.links["next"]["url"])
    assert {**url.params} == asked | {"limit": "1", "cursor": url.params["cursor"]}
    assert url.path == "/products"
    assert len([page async for page in pages(client, **asked, limit="1")]) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"sort_by": "name"},
        {"sort_by": "created_at"},
        {"sort_desc": "false"},
        {"is_active": "false"},
        {"q": "a"},
    ],
)
async def test_a_cursor_of_another_order_or_filter_is_refused(
    client: httpx2.AsyncClient, db: Db, other: dict[str, str]
) -> None:
    await service.create(db, [a_new_product() for _ in range(3)])
    asked = {"sort_by": "price", "limit": "1"}
    url = httpx2.URL((await client.get("/products", params=asked)).links["next"]["url"])
    cursor = {"cursor": url.params["cursor"]}
    assert len((await client.get("/products", params=asked | cursor | {"limit": "2"})).json()) == 2
    problem(await client.get("/products", params=asked | cursor | other), 422, "cursor-invalid")


async def test_whatever_is_made_up_as_a_cursor_is_refused(
    client: httpx2.AsyncClient, db: Db
) -> None:
    await service.create(db, [a_new_product() for _ in range(2)])
    for sort_by in ("price", "name", "created_at"):
        asked = {"sort_by": sort_by, "limit": "1"}
        url = httpx2.URL((await client.get("/products", params=asked)).links["next"]["url"])
        mark = mark_of(url.params["cursor"])
        some_id = "0198c0de-0000-7000-8000-000000000001"
        keys: list[object] = [None, True, 1.5, -1, 2**60, 2**64 - 1, [], {}]
        keys.append("x" if sort_by != "name" else "a\0b")
        made_up: list[object] = [[mark, key, some_id] for key in keys]
        fit = "x" if sort_by == "name" else 1
        made_up += [[mark, fit, 7], [mark, fit, "no id"], [mark, fit], [fit, some_id], [], [mark]]
        texts = [encode_cursor(raw) for raw in (*made_up, 7, None, "abc")]
        for text in (*texts, "!", "a", "%00", "é", "A" * 2000, ""):
            answer = await client.get("/products", params=asked | {"cursor": text})
            problem(answer, 422, "cursor-invalid")
        answer = await client.get("/products", params=asked | {"cursor": "A" * 2001})
        problem(answer, 422, "validation")


def mark_of(cursor: str) -> str:
    """What tells the order and filter that a cursor is of."""
    return json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))[0]
