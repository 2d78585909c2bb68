"""Stock: locked without waiting, moved many at once, never below nothing, never twice."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest
from tests.integration.catalog.shop import (
    a_new_product,
    a_product,
    counted,
    history,
    move,
    returned,
    taken,
)

from picopay.catalog import service
from picopay.catalog.errors import ProductArchived, ProductNotFound
from picopay.catalog.model import STOCK_MAX, Change, MoveReason, StockMove
from picopay.cli.ledger import verify
from picopay.infra.db import Db
from picopay.kernel.money import Money


async def test_a_product_is_opened_with_a_move_of_its_stock(
    db: Db, owner: asyncpg.Connection
) -> None:
    product = await a_product(db, stock=10)
    assert (product.stock, product.version, product.price) == (10, 1, Money(150_000, "USD"))
    assert await history(owner, product.id) == [(1, 10, 10, "opened")]


async def test_a_product_without_stock_has_no_moves(db: Db, owner: asyncpg.Connection) -> None:
    product = await a_product(db, stock=0)
    assert (product.stock, product.version) == (0, 0)
    assert await history(owner, product.id) == []


async def test_making_products_again_makes_only_what_is_missing(
    db: Db, owner: asyncpg.Connection
) -> None:
    first, second = a_new_product(stock=3), a_new_product(stock=4)
    assert await service.create(db, [first]) == {first.id}
    assert await service.create(db, [second, first._replace(stock=9)]) == {second.id}
    assert await history(owner, first.id) == [(1, 3, 3, "opened")]
    assert await history(owner, second.id) == [(1, 4, 4, "opened")]


async def test_products_are_locked_for_others_and_told_apart_from_unknown_ones(db: Db) -> None:
    mine, other, unknown = await a_product(db), await a_product(db), uuid4()
    async with db.begin() as tx, db.begin() as elsewhere:
        first = await service.lock_products(elsewhere, [other.id])
        locked = await service.lock_products(tx, [other.id, mine.id, unknown, mine.id])
    assert first == ({other.id: other}, set())
    assert locked.products == {mine.id: mine}
    assert locked.busy == {other.id}


async def test_who_asks_to_wait_gets_the_product_when_it_is_free_and_as_it_is_then(db: Db) -> None:
    product = await a_product(db, stock=10)
    async with db.begin() as tx:
        await service.lock_products(tx, [product.id])

        async def wait() -> int:
            async with db.begin() as waiting:
                locked = await service.lock_products(waiting, [product.id], wait=True)
            assert not locked.busy
            return locked.products[product.id].stock

        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0.1)
        assert not waiter.done()
        await service.move_stock(tx, [taken(product.id, 4)])
    assert await waiter == 6


async def test_nothing_to_lock_and_nothing_to_move_are_fine(db: Db) -> None:
    async with db.begin() as tx:
        assert await service.lock_products(tx, []) == ({}, set())
        await service.move_stock(tx, [])


async def test_archived_and_inactive_products_are_locked_and_say_what_they_are(db: Db) -> None:
    archived, inactive = await a_product(db), await a_product(db)
    await service.archive(db, archived.id)
    await service.change(db, inactive.id, Change(is_active=False))
    async with db.begin() as tx:
        locked = await service.lock_products(tx, [archived.id, inactive.id])
    assert [p.is_for_sale for p in locked.products.values()] == [False, False]


async def test_many_moves_of_many_products_are_recorded_in_order(
    db: Db, owner: asyncpg.Connection
) -> None:
    one, two = await a_product(db, stock=10), await a_product(db, stock=5)
    order = uuid4()
    await move(
        db,
        [taken(one.id, 4, order), taken(two.id, 5), returned(one.id, 4, order), taken(one.id, 1)],
    )
    assert await history(owner, one.id) == [
        (1, 10, 10, "opened"),
        (2, -4, 6, "reserved"),
        (3, 4, 10, "returned"),
        (4, -1, 9, "reserved"),
    ]
    assert await history(owner, two.id) == [(1, 5, 5, "opened"), (2, -5, 0, "reserved")]
    shown = [await service.show(db, product.id) for product in (one, two)]
    assert [(p.stock, p.version) for p in shown] == [(9, 4), (0, 2)]
    assert shown[0].updated_at > one.updated_at


async def test_a_thousand_moves_take_two_statements(db: Db, owner: asyncpg.Connection) -> None:
    new = [a_new_product(f"P{number}", stock=10) for number in range(100)]
    await service.create(db, new)
    seen: list[str] = []
    async with db.begin() as tx:
        tx.driver.add_query_logger(lambda record: seen.append(record.query))
        await service.move_stock(tx, [taken(p.id, 1) for p in new for _ in range(10)])
    assert len([query for query in seen if "COMMIT" not in query]) == 2
    assert await owner.fetchval("SELECT sum(stock) FROM products") == 0
    assert await owner.fetchval("SELECT count(*) FROM stock_moves") == 1100


async def test_more_than_there_is_cannot_be_taken(db: Db, owner: asyncpg.Connection) -> None:
    product = await a_product(db, stock=3)
    with pytest.raises(AssertionError):
        await move(db, [taken(product.id, 2), taken(product.id, 2)])
    assert await history(owner, product.id) == [(1, 3, 3, "opened")]


async def test_moves_of_an_unknown_product_are_a_bug_and_move_nothing(
    db: Db, owner: asyncpg.Connection
) -> None:
    product = await a_product(db, stock=3)
    with pytest.raises(KeyError):
        await move(db, [taken(product.id, 1), taken(uuid4(), 1)])
    assert await history(owner, product.id) == [(1, 3, 3, "opened")]


async def test_a_version_that_was_turned_back_is_noticed_and_nothing_is_moved(
    db: Db, owner: asyncpg.Connection
) -> None:
    product = await a_product(db, stock=3)
    await owner.execute("UPDATE products SET version = 0")
    with pytest.raises(asyncpg.UniqueViolationError):
        await move(db, [taken(product.id, 1)])
    assert await owner.fetchval("SELECT stock FROM products") == 3


async def test_an_order_takes_and_returns_a_product_once(db: Db, owner: asyncpg.Connection) -> None:
    product, order = await a_product(db, stock=10), uuid4()
    await move(db, [taken(product.id, 2, order)])
    with pytest.raises(asyncpg.UniqueViolationError):
        await move(db, [taken(product.id, 2, order)])
    await move(db, [returned(product.id, 2, order)])
    with pytest.raises(asyncpg.UniqueViolationError):
        await move(db, [returned(product.id, 2, order)])
    assert (await service.show(db, product.id)).stock == 10
    assert len(await history(owner, product.id)) == 3


async def test_what_comes_back_onto_a_full_shelf_fits_and_can_be_counted_down(
    db: Db, owner: asyncpg.Connection
) -> None:
    product, order = await a_product(db, stock=1), uuid4()
    await move(db, [taken(product.id, 1, order)])
    await service.change(db, product.id, Change(stock=STOCK_MAX))
    await move(db, [returned(product.id, 1, order)])
    assert (await service.show(db, product.id)).stock == STOCK_MAX + 1
    assert (await service.change(db, product.id, Change(stock=0))).stock == 0
    assert (await history(owner, product.id))[3:] == [
        (4, 1, STOCK_MAX + 1, "returned"),
        (5, -STOCK_MAX - 1, 0, "adjusted"),
    ]
    about_stock = [r for r in await verify(db) if r.name in {"stock", "stock-moves"}]
    assert [report.drifts for report in about_stock] == [0, 0]


async def test_concurrent_takers_never_take_more_than_there_is(db: Db) -> None:
    product = await a_product(db, stock=10)

    async def take() -> bool:
        async with db.begin() as tx:
            locked = await service.lock_products(tx, [product.id], wait=True)
            if locked.products[product.id].stock < 3:
                return False
            await service.move_stock(tx, [counted(product.id, 3)])
            return True

    got = await asyncio.gather(*(take() for _ in range(10)))
    assert sum(got) == 3
    assert (await service.show(db, product.id)).stock == 1
    assert not any(report.drifts for report in await verify(db))


async def test_administrators_stock_is_the_difference_under_the_lock(
    db: Db, owner: asyncpg.Connection
) -> None:
    product = await a_product(db, stock=10)
    async with db.begin() as tx:
        await service.move_stock(tx, [taken(product.id, 4)])
        changing = asyncio.create_task(service.change(db, product.id, Change(stock=20)))
        await asyncio.sleep(0.1)
        assert not changing.done()
    assert (await changing).stock == 20
    assert (await history(owner, product.id))[2:] == [(3, 14, 20, "adjusted")]


async def test_a_change_of_nothing_writes_nothing(db: Db, owner: asyncpg.Connection) -> None:
    product = await a_product(db)
    same = Change("Laptop", Money(150_000, "USD"), 10, is_active=True)
    assert await service.change(db, product.id, same) == product
    assert len(await history(owner, product.id)) == 1


async def test_what_is_archived_or_unknown_cannot_be_changed(db: Db) -> None:
    product = await a_product(db)
    await service.archive(db, product.id)
    with pytest.raises(ProductArchived):
        await service.change(db, product.id, Change(stock=1))
    with pytest.raises(ProductNotFound):
        await service.change(db, uuid4(), Change(stock=1))
    with pytest.raises(ProductNotFound):
        await service.archive(db, uuid4())


async def test_archiving_twice_keeps_the_first_time(db: Db) -> None:
    product = await a_product(db)
    await service.archive(db, product.id)
    first = await service.show(db, product.id)
    await service.archive(db, product.id)
    assert await service.show(db, product.id) == first
    assert first.archived_at is not None


async def test_an_archived_product_still_takes_back_what_orders_return(db: Db) -> None:
    product, order = await a_product(db, stock=5), uuid4()
    await move(db, [taken(product.id, 5, order)])
    await service.archive(db, product.id)
    await move(db, [returned(product.id, 5, order)])
    assert (await service.show(db, product.id)).stock == 5


async def test_a_move_knows_its_time_and_is_younger_than_its_elder(
    db: Db, owner: asyncpg.Connection
) -> None:
    product = await a_product(db, stock=5)
    await move(db, [taken(product.id, 1)])
    await move(db, [StockMove(product.id, 7, MoveReason.ADJUSTED)])
    rows = await owner.fetch("SELECT id, created_at FROM stock_moves ORDER BY version")
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert [row["created_at"] for row in rows] == sorted(row["created_at"] for row in rows)
