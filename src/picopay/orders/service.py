"""Use cases of orders: place them, look at them, cancel them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from picopay.catalog import service as catalog
from picopay.idempotency import service as idempotency
from picopay.idempotency.model import KeyId
from picopay.infra import metrics
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.infra.json import dump
from picopay.infra.tx import Tx
from picopay.orders import endings, rules, saga, store
from picopay.orders.errors import OrderNotCancelable, OrderNotFound
from picopay.orders.model import (
    OPEN,
    PAYMENT_REQUESTED,
    Filter,
    Happened,
    Order,
    OrderCommand,
    Shop,
    Step,
    TimelineEntry,
    aggregate_of,
)
from picopay.orders.rules import Made, Outcome, Placed, Shelves
from picopay.outbox import service as outbox
from picopay.outbox.model import NewEvent
from picopay.users import service as users

# A batch waits for keys that others are claiming, and for nothing else, for so long.
LOCK_TIMEOUT_MS: Final = 1_000
BY_CUSTOMER: Final = "by the customer"  # why an order is canceled
_PLACED: Final = (Step(Happened.PLACED),)


async def place_batch(db: Db, shop: Shop, commands: Sequence[OrderCommand]) -> list[Outcome]:
    """Decide and write a batch in one transaction; the decisions in the order of the commands.

    Locked products are not waited for: their orders come back `Busy`. A COMMIT whose answer was
    lost is run again: it finds what the first one made. Raises `DatabaseUnavailable`.
    """

    async def work(tx: Tx) -> list[Outcome]:
        return await _place(tx, shop, commands)

    return await db.repeating(work, lock_timeout_ms=LOCK_TIMEOUT_MS)


async def _place(tx: Tx, shop: Shop, commands: Sequence[OrderCommand]) -> list[Outcome]:
    fresh = [command for command in commands if command.refusal is None]
    claims = {command.key_id: command.id for command in reversed(fresh)}  # the first of twins
    taken = await idempotency.claim(tx, claims)
    if refused := {c.key_id for c in commands if c.refusal is not None} - claims.keys():
        taken |= await idempotency.find(tx, sorted(refused))
    known = await _orders_of(tx, taken)
    wanted = {line.product_id for c in fresh if c.key not in known for line in c.lines}
    found = await catalog.lock_products(tx, wanted)
    item_ids = (new_id() for c in commands for _ in c.lines)
    payers = {command.user_id for command in commands if command.user_id is not None}
    strangers = await users.unknown(tx, payers) if payers else set[int]()
    shelves, busy = Shelves(found.products, shop.currency, strangers), frozenset(found.busy)
    decisions = rules.decide_batch(commands, known, shelves, busy, item_ids)
    placed = [decision for decision in decisions if isinstance(decision, Placed)]
    made_at = await store.now(tx)
    if placed:
        await _write(tx, shop, placed, made_at)
    made = {p.command.key_id for p in placed}
    await idempotency.give_back(
        tx, {key: i for key, i in claims.items() if key not in taken and key not in made}
    )
    return [
        Made(rules.order_of(d, shop.currency, made_at)) if isinstance(d, Placed) else d
        for d in decisions
    ]


async def _orders_of(tx: Tx, taken: Mapping[KeyId, UUID]) -> dict[str, Order]:
    if not taken:
        return {}
    orders = await store.select_orders(tx, list(taken.values()))
    return {key.key: orders[order_id].order for key, order_id in taken.items()}


async def _write(tx: Tx, shop: Shop, placed: Sequence[Placed], at: datetime) -> None:
    await catalog.move_stock(tx, [move for p in placed for move in p.moves])
    await store.insert_placed(tx, placed, shop, at, _PLACED)
    consumers = (shop.provider.consumer,)
    events = [
        NewEvent(
            new_id(),
            PAYMENT_REQUESTED,
            aggregate_of(p.command.id),
            consumers,
            dump({"order_id": p.command.id}),
            request_id=p.command.request_id,
        )
        for p in placed
    ]
    await outbox.append(tx, events)


async def show(db: Db, order_id: UUID) -> Order:
    """Raises `OrderNotFound`."""
    found = await db.query(lambda tx: store.select_orders(tx, [order_id]))
    if order_id not in found:
        raise OrderNotFound(order_id)
    return found[order_id].order


async def page(db: Db, wanted: Filter, limit: int) -> list[Order]:
    """Newest first; one more than `limit` tells that there are more."""
    return await db.query(lambda tx: store.select_page(tx, wanted, limit + 1))


async def timeline(db: Db, order_id: UUID) -> list[TimelineEntry]:
    """All that has happened to it, in order. Raises `OrderNotFound`."""
    found = await db.query(lambda tx: store.select_timeline(tx, order_id))
    if not found:  # each begins with its placing
        raise OrderNotFound(order_id)
    return found


async def cancel(db: Db, order_id: UUID) -> Order:
    """Give its stock back. Raises `OrderNotFound` and `OrderNotCancelable`.

    Money that comes for it later is returned.
    """

    async def work() -> None:
        async with db.begin(lock_timeout_ms=saga.LOCK_TIMEOUT_MS) as tx:
            order = (await saga.lock(tx, order_id)).order
            if order.status not in OPEN:
                raise OrderNotCancelable(order_id, order.status)
            await saga.cancel(tx, order, Step(Happened.CANCELED, BY_CUSTOMER))

    await db.retrying(work)
    metrics.orders_canceled.inc()
    endings.canceled(order_id, BY_CUSTOMER)
    return await show(db, order_id)
