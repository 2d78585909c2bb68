"""The SQL of products and their stock."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import func, select, update

from picopay.catalog.model import Listing, NewProduct, Product, Recorded, Stock
from picopay.catalog.tables import Products
from picopay.infra.tx import Part, Tx, bigints, texts
from picopay.kernel.money import Money

# Of the list, searched before an index of names is asked: what has a match in a hundred names
# fills its page from these.
NEARBY_MAX: Final = 2000
# What surely holds a trigram, whatever the database takes for a letter. Shorter parts have an index
# of their own; so have languages and signs that trigrams may pass over.
_TRIGRAM: Final = re.compile("[0-9A-Za-z]{3}")

# By the database's language, as the index has it; what is looked for too, since languages differ.
_LOWERED: Final = 'lower(name COLLATE "default")'

_TABLE: Final = Products.__table__
_COLUMNS: Final = ", ".join(column.name for column in _TABLE.columns)

_LOCK: Final = f"""
SELECT {_COLUMNS} FROM products WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE
"""  # noqa: S608 - ours
_LOCK_FREE: Final = f"{_LOCK} SKIP LOCKED"
_EXISTING: Final = "SELECT id FROM products WHERE id = ANY($1::uuid[])"

_INSERT: Final = """
INSERT INTO products (id, name, currency, price, stock, version, is_active)
SELECT new.id, new.name, new.currency, new.price, new.stock, (new.stock > 0)::int, new.is_active
  FROM unnest($1::uuid[], $2::text::text[], $3::text::text[], $4::text::bigint[],
              $5::text::bigint[], $6::bool[])
       AS new(id, name, currency, price, stock, is_active)
ON CONFLICT DO NOTHING
RETURNING id
"""

_STOCKS: Final = """
UPDATE products p
   SET stock = new.stock, version = new.version, updated_at = now()
  FROM unnest(%1::uuid[], %2::text::bigint[], %3::text::int[], %4::text::int[])
       AS new(id, stock, version, version_before)
 WHERE p.id = new.id AND p.version = new.version_before AND p.id = ANY(%1::uuid[])
RETURNING 1
"""

_MOVES: Final = """
INSERT INTO stock_moves (product_id, version, id, delta, stock_after, reason, order_id)
SELECT * FROM unnest(%1::uuid[], %2::text::int[], %3::uuid[], %4::text::bigint[],
                     %5::text::bigint[], %6::text::text[], %7::uuid[])
RETURNING 1
"""


class Query(NamedTuple):
    sql: str
    arguments: Sequence[object]


async def insert_absent(tx: Tx, products: Sequence[NewProduct]) -> set[UUID]:
    """Those ids that are new, with their stock; its moves are for the caller to insert."""
    rows = [
        (p.id, p.name, p.price.currency, p.price.minor, p.stock, p.is_active)
        for p in sorted(products)
    ]
    ids, names, currencies, prices, stocks, active = zip(*rows, strict=True)
    made = await tx.driver.fetch(
        _INSERT, ids, texts(names), texts(currencies), bigints(prices), bigints(stocks), active
    )
    return {row[0] for row in made}


async def lock(tx: Tx, ids: Collection[UUID], *, wait: bool) -> dict[UUID, Product]:
    """In the order of their ids, until the transaction ends; unless `wait`, only who is free."""
    rows = await tx.driver.fetch(_LOCK if wait else _LOCK_FREE, list(ids))
    return {product.id: product for product in map(_product, rows)}


async def existing(tx: Tx, ids: Collection[UUID]) -> set[UUID]:
    return {row[0] for row in await tx.driver.fetch(_EXISTING, list(ids))}


def stocks(before: Mapping[UUID, Stock], after: Mapping[UUID, Stock]) -> Part:
    """The stock of products that are locked, unless somebody changed one all the same."""
    rows = [
        (product_id, stock.quantity, stock.version, before[product_id].version)
        for product_id, stock in after.items()
    ]
    ids, *numbers = zip(*rows, strict=True)
    return Part("stocks", _STOCKS, (ids, *map(bigints, numbers)), len(rows))


def insertion(recorded: Sequence[Recorded]) -> Part:
    rows = [
        (
            move.product_id, after.version, move_id, move.delta, after.quantity, move.reason,
            move.order_id,
        )
        for move_id, move, after in recorded
    ]  # fmt: skip
    products, versions, ids, deltas, quantities, reasons, orders = zip(*rows, strict=True)
    numbers = (bigints(deltas), bigints(quantities))
    arguments = (products, bigints(versions), ids, *numbers, texts(reasons), orders)
    return Part("moves", _MOVES, arguments, len(rows))


async def save(tx: Tx, product: Product) -> None:
    """All but its stock, of a product that is locked."""
    statement = (
        update(Products)
        .where(Products.id == product.id)
        .values(
            name=product.name,
            currency=product.price.currency,
            price=product.price.minor,
            is_active=product.is_active,
            updated_at=func.now(),
        )
    )
    done = await tx.execute(statement)
    assert done.rowcount == 1, "it is locked"


async def mark_archived(tx: Tx, product_id: UUID) -> bool:
    """Whether it was not archived before."""
    statement = (
        update(Products)
        .where(Products.id == product_id, Products.archived_at.is_(None))
        .values(archived_at=func.now(), updated_at=func.now())
    )
    return (await tx.execute(statement)).rowcount == 1


async def select_product(tx: Tx, product_id: UUID) -> Product | None:
    query = select(_TABLE).where(Products.id == product_id)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _product(row)


async def select_page(tx: Tx, listing: Listing, limit: int) -> list[Product]:
    """What is common is found nearby, in the order of the list; what is rare, by its own index.

    Left to the planner, a search would now and then walk through the whole list: it cannot know
    that all Zebras stand at the end of the alphabet.
    """
    if listing.q is None:
        return await _select(tx, page_query(listing, limit))
    products = await _select(tx, nearby_query(listing, listing.q, limit))
    if len(products) < limit:
        products = await _select(tx, search_query(listing, listing.q, limit))
    return products


async def _select(tx: Tx, query: Query) -> list[Product]:
    return [_product(row) for row in await tx.driver.fetch(query.sql, *query.arguments)]


def page_query(listing: Listing, limit: int) -> Query:
    """From behind `listing.after` on: one range of the sort order's index, whatever the page."""
    behind, arguments = _behind(listing)
    where = f"archived_at IS NULL AND is_active = $1 {behind}"
    sql = f"SELECT {_COLUMNS} FROM products WHERE {where} {_order(listing)} LIMIT $2"  # noqa: S608 - ours
    return Query(sql, [listing.is_active, limit, *arguments])


def nearby_query(listing: Listing, q: str, limit: int) -> Query:
    """Matches among the next products of the list; no more of it is read than is needed."""
    near = page_query(listing, NEARBY_MAX)
    arguments = [*near.arguments, _pattern(q), limit]
    matches = f"{_LOWERED} LIKE lower(${len(arguments) - 1}::text)"
    sql = f"SELECT * FROM ({near.sql}) near WHERE {matches} {_order(listing)}"  # noqa: S608 - ours
    return Query(f"{sql} LIMIT ${len(arguments)}", arguments)


def search_query(listing: Listing, q: str, limit: int) -> Query:
    """All matches by an index of names, then sorted. `OFFSET 0` keeps the order from mattering."""
    behind, arguments = _behind(listing)
    where = f"archived_at IS NULL AND is_active = $1 {behind}"
    arguments = [listing.is_active, limit, *arguments, _pattern(q)]
    where += f" AND {_LOWERED} LIKE lower(${len(arguments)}::text)"
    if not _TRIGRAM.search(q):
        arguments.append(q)
        where += f" AND short_parts(name) @> short_parts(lower(${len(arguments)}::text))"
    found = f"SELECT {_COLUMNS} FROM products WHERE {where} OFFSET 0"  # noqa: S608 - ours
    return Query(f"SELECT * FROM ({found}) found {_order(listing)} LIMIT $2", arguments)  # noqa: S608 - ours


def _behind(listing: Listing) -> tuple[str, list[object]]:
    if listing.after is None:
        return "", []
    sign = "<" if listing.descending else ">"
    return f"AND ({listing.sort_by}, id) {sign} ($3, $4)", [*listing.after]


def _order(listing: Listing) -> str:
    direction = "DESC" if listing.descending else "ASC"
    return f"ORDER BY {listing.sort_by} {direction}, id {direction}"


def _pattern(q: str) -> str:
    """Of a name that holds the text, taken literally."""
    return "%" + q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"


def _product(row: Iterable[Any]) -> Product:
    """A row with all columns of the table, in its order."""
    product_id, name, currency, price, stock, version, is_active, archived_at, *times = row
    return Product(
        product_id, name, Money(price, currency), stock, is_active, archived_at, version, *times
    )
