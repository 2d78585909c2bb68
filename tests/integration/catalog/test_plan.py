"""Lists and searches of many products read an index, and no more of it than they must.

Also with plans that are generic, as prepared statements have them after a few calls, and, but for
one, with statistics of an empty table, as after a shop was filled at once.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import product as combinations
from typing import Any, Final, cast
from uuid import UUID

import asyncpg
import pytest
from tests.conftest import TABLES, Stores

from picopay.catalog import store
from picopay.catalog.model import Listing, Position, SortBy

PRODUCTS: Final = 50_000
PAGE: Final = 21
# A page's products may each lie in a page of the table of their own; and what is archived or
# inactive must not be walked through.
PAGE_BUFFERS_MAX: Final = 3 * PAGE
NEARBY_BUFFERS_MAX: Final = 3 * store.NEARBY_MAX
SEARCH_BUFFERS_MAX: Final = 300
BEGAN: Final = datetime(2026, 1, 1, tzinfo=UTC)
# A tenth is archived, a tenth inactive. All Zebras, few, stand at the end of every order.
_FILL = f"""
INSERT INTO products
       (id, name, currency, price, stock, version, is_active, archived_at, created_at)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
       CASE WHEN n > {PRODUCTS} - 30 THEN 'Żółć zqb c++ ' ELSE 'Apple ' END
           || lpad(n::text, 6, '0'),
       'USD', n / 100, 0, 0, n % 10 <> 1, CASE n % 10 WHEN 2 THEN now() END,
       timestamptz '2026-01-01 00:00Z' + (n / 50) * interval '1 second'
  FROM generate_series(1, {PRODUCTS}) n
"""  # noqa: S608 - ours
# What ANALYZE found in earlier tests' products: it keeps that when it finds none.
_FORGET = """
DELETE FROM pg_statistic
 WHERE starelid = 'products'::regclass
    OR starelid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'products'::regclass)
"""
EMPTY, CURRENT = "of an empty table", "current"
ORDERS: Final = list(combinations(SortBy, (False, True)))
Plan = dict[str, Any]
Order = tuple[SortBy, bool]


@pytest.fixture(scope="module", params=[EMPTY, CURRENT])
def statistics(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
async def filled(stores: Stores, statistics: str) -> AsyncIterator[asyncpg.Connection]:
    owner = await asyncpg.connect(stores.owner_url)
    await owner.execute(f"TRUNCATE {TABLES}")
    await owner.execute("ALTER TABLE products SET (autovacuum_enabled = off)")
    await owner.execute("ANALYZE products")
    await owner.execute(_FORGET)
    await owner.execute(_FILL)
    for index in ("products_search_idx", "products_short_search_idx"):
        await owner.execute(f"SELECT gin_clean_pending_list('{index}')")
    if statistics == CURRENT:
        await owner.execute("ANALYZE products")
    yield owner
    await owner.execute(f"TRUNCATE {TABLES}")
    await owner.execute("ANALYZE products")
    await owner.execute("ALTER TABLE products RESET (autovacuum_enabled)")
    await owner.close()


async def explained(owner: asyncpg.Connection, query: store.Query, kind: str) -> Plan:
    """As the application would run it: prepared, with parameters."""
    await owner.execute(f"SET plan_cache_mode = force_{kind}_plan")
    statement = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query.sql}"
    (found,) = json.loads(await owner.fetchval(statement, *query.arguments))
    return found["Plan"]


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in cast("list[dict[str, Any]]", plan.get("Plans", [])):
        yield from nodes(child)


def indexes(plan: Plan) -> set[str]:
    return {node["Index Name"] for node in nodes(plan) if "Index Name" in node}


def kinds(plan: Plan) -> set[str]:
    return {node["Node Type"] for node in nodes(plan)}


def touched(plan: Plan) -> int:
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def behind(sort_by: SortBy, number: int) -> Position:
    """The position of the product of that number."""
    key: datetime | str | int = f"Apple {number:06}"
    if sort_by is SortBy.PRICE:
        key = number // 100
    if sort_by is SortBy.CREATED_AT:
        key = BEGAN + timedelta(seconds=number // 50)
    return Position(key, UUID(int=(7 << 76) | (2 << 62) | number))


def test_a_position_is_that_of_the_product() -> None:
    """Or else the pages below would begin nowhere."""
    assert str(behind(SortBy.NAME, 255).id) == "00000000-0000-7000-8000-0000000000ff"


@pytest.mark.parametrize("kind", ["custom", "generic"])
@pytest.mark.parametrize("after", [None, PRODUCTS // 2])
@pytest.mark.parametrize("order", ORDERS)
async def test_any_page_of_any_order_is_one_short_range_of_its_index(
    filled: asyncpg.Connection,
    order: Order,
    after: int | None,
    kind: str,
) -> None:
    sort_by, descending = order
    position = None if after is None else behind(sort_by, after)
    for is_active in (True, False):
        listing = Listing(None, is_active, sort_by, descending, position)
        plan = await explained(filled, store.page_query(listing, PAGE), kind)
        shown = json.dumps(plan, indent=1)
        assert indexes(plan) == {f"products_{sort_by}_idx"}, shown
        assert kinds(plan) <= {"Limit", "Index Scan"}, shown
        assert plan["Actual Rows"] == PAGE, shown
        assert touched(plan) <= PAGE_BUFFERS_MAX, shown


# Of a table that is believed to be empty, the next 2,000 are sorted; autovacuum soon knows better.
@pytest.mark.parametrize("statistics", [CURRENT], indirect=True)
@pytest.mark.parametrize("kind", ["custom", "generic"])
@pytest.mark.parametrize("q", ["a", "pp", "apple", "zqb"])
@pytest.mark.parametrize("order", ORDERS)
async def test_what_is_looked_for_nearby_is_bounded_and_ends_with_the_page(
    filled: asyncpg.Connection,
    order: Order,
    q: str,
    kind: str,
) -> None:
    sort_by, descending = order
    listing = Listing(q, sort_by=sort_by, descending=descending)
    plan = await explained(filled, store.nearby_query(listing, q, PAGE), kind)
    shown = json.dumps(plan, indent=1)
    assert indexes(plan) == {f"products_{sort_by}_idx"}, shown
    assert "Sort" not in kinds(plan), shown
    assert touched(plan) <= NEARBY_BUFFERS_MAX, shown
    if q != "zqb":
        assert plan["Actual Rows"] == PAGE, shown
        assert touched(plan) <= PAGE_BUFFERS_MAX, shown


LONG, SHORT = "products_search_idx", "products_short_search_idx"
RARE: Final = {
    "zqb": LONG,
    "qb c": SHORT,
    "z": SHORT,
    "zq": SHORT,
    "c++": SHORT,
    "żół": SHORT,
    "nothing like it": LONG,
    "~": SHORT,
    "~~~~": SHORT,
}


@pytest.mark.parametrize("kind", ["custom", "generic"])
@pytest.mark.parametrize("q", RARE)
@pytest.mark.parametrize("order", ORDERS)
async def test_what_is_rare_is_found_by_an_index_of_names_wherever_it_stands(
    filled: asyncpg.Connection,
    statistics: str,
    order: Order,
    q: str,
    kind: str,
) -> None:
    # Where both will do, they look alike to a planner that knows nothing.
    index = LONG if (statistics, q) == (EMPTY, "qb c") else RARE[q]
    listing = Listing(q, sort_by=order[0], descending=order[1])
    plan = await explained(filled, store.search_query(listing, q, PAGE), kind)
    shown = json.dumps(plan, indent=1)
    assert index in indexes(plan), shown
    assert "Seq Scan" not in kinds(plan), shown
    assert plan["Actual Rows"] == (0 if "~" in q or "nothing" in q else PAGE), shown
    assert touched(plan) <= SEARCH_BUFFERS_MAX, shown


async def test_an_order_changes_a_product_beside_itself(filled: asyncpg.Connection) -> None:
    """A new version of the row in the same page, and no index written."""
    hot = "SELECT pg_stat_get_xact_tuples_hot_updated('products'::regclass)"
    transaction = filled.transaction()
    await transaction.start()
    try:
        before = await filled.fetchval(hot)
        await filled.execute(
            "UPDATE products SET stock = stock + 1, version = version + 1, updated_at = now()"
            " WHERE name LIKE 'Apple %500'"  # each in another page
        )
        assert await filled.fetchval(hot) == before + PRODUCTS // 1000
    finally:
        await transaction.rollback()
