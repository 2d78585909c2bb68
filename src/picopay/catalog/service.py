"""Use cases of products: make, show, list, change, archive; and stock, for whoever sells it."""

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from picopay.catalog import rules, store
from picopay.catalog.errors import ProductArchived, ProductNotFound
from picopay.catalog.model import (
    Change,
    Listing,
    Locked,
    NewProduct,
    Product,
    Recorded,
    Stock,
    StockMove,
)
from picopay.infra.db import (
    CommitInDoubt,
    ConnectionLost,
    DatabaseUnavailable,
    Db,
    OutcomeUnknown,
)
from picopay.infra.ids import new_id
from picopay.infra.logs import log
from picopay.infra.tx import Tx

LOCK_TIMEOUT_MS: Final = 5_000


async def lock_products(tx: Tx, ids: Collection[UUID], *, wait: bool = False) -> Locked:
    """The products, locked in the order of their ids until the transaction ends.

    Archived and inactive ones too: see `Product.is_for_sale`. Unless `wait`, those that are locked
    elsewhere are told as busy instead of waited for.
    """
    if not ids:
        return Locked({}, set())
    products = await store.lock(tx, set(ids), wait=wait)
    missing = set(ids) - products.keys()
    # Who waits has seen every product there is.
    busy = await store.existing(tx, missing) if missing and not wait else set[UUID]()
    return Locked(products, busy)


async def move_stock(tx: Tx, moves: Sequence[StockMove]) -> None:
    """Record the moves in order, of products that exist; each order moves a product once a reason.

    Two statements, however many: one locks the products, if the caller has not, the other writes
    stocks and history. Raises an `AssertionError` when more is taken than there is, or not every
    row was written: callers look before, under the lock.
    """
    if not moves:
        return
    products = await store.lock(tx, {move.product_id for move in moves}, wait=True)
    before = {p.id: Stock(p.stock, p.version) for p in products.values()}
    recorded = rules.record(before, moves, [new_id() for _ in moves])
    await _write(tx, before, recorded)


async def _write(tx: Tx, before: dict[UUID, Stock], recorded: Sequence[Recorded]) -> None:
    await tx.write(store.stocks(before, rules.lasts(recorded)), store.insertion(recorded))


async def create(db: Db, products: Sequence[NewProduct]) -> set[UUID]:
    """Make those products whose ids are new, with their stock. Returns the ids of all it made.

    When the answer of COMMIT is lost the same transaction is run again, and makes what is missing:
    ids are never given twice. Raises `OutcomeUnknown` when the database stays lost.
    """
    in_doubt = False
    made: set[UUID] = set()

    async def work() -> None:
        nonlocal in_doubt
        try:
            async with db.begin() as tx:
                made.update(await _insert(tx, products))
        except CommitInDoubt as error:
            in_doubt = True
            raise ConnectionLost(str(error)) from error

    try:
        await db.retrying(work)
    except DatabaseUnavailable:
        if in_doubt:
            raise OutcomeUnknown("product", products[0].id) from None
        raise
    return made


async def _insert(tx: Tx, products: Sequence[NewProduct]) -> set[UUID]:
    ids = await store.insert_absent(tx, products)
    moves = rules.opened([product for product in products if product.id in ids])
    if moves:
        nothing = {move.product_id: Stock(0, 0) for move in moves}
        recorded = rules.record(nothing, moves, [new_id() for _ in moves])
        await tx.write(store.insertion(recorded))
    return ids


async def add(db: Db, product: NewProduct) -> Product:
    """One product, by an administrator. Raises `OutcomeUnknown`."""
    await create(db, [product])
    log.info("product.created", product_id=str(product.id), name=product.name)
    return await show(db, product.id)


async def show(db: Db, product_id: UUID) -> Product:
    """Archived ones too. Raises `ProductNotFound`."""
    product = await db.query(lambda tx: store.select_product(tx, product_id))
    if product is None:
        raise ProductNotFound(product_id)
    return product


async def show_listed(db: Db, product_id: UUID) -> Product:
    """Raises `ProductNotFound`, of archived ones too."""
    product = await show(db, product_id)
    if product.archived_at is not None:
        raise ProductNotFound(product_id)
    return product


async def page(db: Db, listing: Listing, limit: int) -> list[Product]:
    """One more than `limit` tells that there are more."""
    return await db.query(lambda tx: store.select_page(tx, listing, limit + 1))


async def change(db: Db, product_id: UUID, wanted: Change) -> Product:
    """The product as wanted. Raises `ProductNotFound`, `ProductArchived`.

    A commit in doubt is run again: what is wanted is told in absolute terms.
    """

    async def work(tx: Tx) -> tuple[Product, Product]:
        before = await _lock(tx, product_id)
        if (after := rules.changed(before, wanted)) != before:
            await store.save(tx, after)
        await move_stock(tx, rules.adjusted(before, wanted))
        saved = await store.select_product(tx, product_id)
        assert saved is not None
        return before, saved

    before, after = await db.repeating(work, lock_timeout_ms=LOCK_TIMEOUT_MS)
    if changed := rules.differences(before, after):
        log.info("product.changed", product_id=str(product_id), changed=changed)
    return after


async def _lock(tx: Tx, product_id: UUID) -> Product:
    product = (await store.lock(tx, [product_id], wait=True)).get(product_id)
    if product is None:
        raise ProductNotFound(product_id)
    if product.archived_at is not None:
        raise ProductArchived(product_id)
    return product


async def archive(db: Db, product_id: UUID) -> None:
    """Listed and sold no more; twice is no error. Raises `ProductNotFound`."""

    async def work(tx: Tx) -> bool:
        archived = await store.mark_archived(tx, product_id)
        if not archived and await store.select_product(tx, product_id) is None:
            raise ProductNotFound(product_id)
        return archived

    if await db.repeating(work, lock_timeout_ms=LOCK_TIMEOUT_MS):
        log.info("product.archived", product_id=str(product_id))
