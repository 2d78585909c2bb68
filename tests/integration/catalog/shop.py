"""Products for tests, made as the application makes them."""

from collections.abc import Iterable
from uuid import UUID

import asyncpg

from picopay.catalog import service
from picopay.catalog.model import MoveReason, NewProduct, Product, StockMove
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.kernel.money import Money


def a_new_product(
    name: str = "Laptop", minor: int = 150_000, stock: int = 10, *, is_active: bool = True
) -> NewProduct:
    return NewProduct(new_id(), name, Money(minor, "USD"), stock, is_active)


async def a_product(db: Db, name: str = "Laptop", minor: int = 150_000, stock: int = 10) -> Product:
    return await service.add(db, a_new_product(name, minor, stock))


async def move(db: Db, moves: Iterable[StockMove]) -> None:
    async with db.begin() as tx:
        await service.move_stock(tx, list(moves))


def taken(product_id: UUID, quantity: int, order_id: UUID | None = None) -> StockMove:
    return StockMove(product_id, -quantity, MoveReason.RESERVED, order_id or new_id())


def counted(product_id: UUID, missing: int) -> StockMove:
    """So many fewer are found on the shelf than there should be."""
    return StockMove(product_id, -missing, MoveReason.ADJUSTED)


def returned(product_id: UUID, quantity: int, order_id: UUID) -> StockMove:
    return StockMove(product_id, quantity, MoveReason.RETURNED, order_id)


async def history(owner: asyncpg.Connection, product_id: UUID) -> list[tuple[object, ...]]:
    """(version, delta, stock_after, reason) of each move."""
    rows = await owner.fetch(
        """SELECT version, delta, stock_after, reason FROM stock_moves
            WHERE product_id = $1 ORDER BY version""",
        product_id,
    )
    return [tuple(row) for row in rows]
