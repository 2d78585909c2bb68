"""The SQL of orders."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
from sqlalchemy import Row, select, tuple_, update

from picopay.infra.tx import Part, RowsMissing, Tx, bigints, texts
from picopay.kernel.money import Money
from picopay.orders.model import (
    Filter,
    Happened,
    Item,
    Name,
    Order,
    Payment,
    PaymentStatus,
    Provider,
    Refund,
    RefundFilter,
    RefundStatus,
    Shop,
    Status,
    Step,
    Stored,
    TimelineEntry,
)
from picopay.orders.rules import Placed
from picopay.orders.tables import OrderEvents, OrderRefunds, Orders

_ORDERS: Final = """
INSERT INTO orders (id, user_email, status, provider, currency, items_total, user_id,
                    created_at, updated_at)
SELECT new.id, new.user_email, 'reserved', %5, %6, new.total, new.user_id, %7, %7
  FROM unnest(%1::uuid[], %2::text::text[], %3::text::bigint[], %4::bigint[])
       AS new(id, user_email, total, user_id)
RETURNING id
"""
_ITEMS: Final = """
INSERT INTO order_items (order_id, place, id, product_id, quantity, price)
SELECT * FROM unnest(%1::uuid[], %2::text::smallint[], %3::uuid[], %4::uuid[], %5::text::int[],
                     %6::text::bigint[])
RETURNING 1
"""
_STEPS: Final = """
INSERT INTO order_events (order_id, seq, happened, detail)
SELECT new.order_id, new.n + coalesce((SELECT max(seq) FROM order_events e
                                        WHERE e.order_id = new.order_id), 0), happened, detail
  FROM unnest(%1::uuid[], %2::text::smallint[], %3::text::text[], %4::text::text[])
       AS new(order_id, n, happened, detail)
RETURNING 1
"""


async def now(tx: Tx) -> datetime:
    return await tx.driver.fetchval("SELECT clock_timestamp()")


async def insert_placed(
    tx: Tx, placed: Sequence[Placed], shop: Shop, at: datetime, steps: Sequence[Step]
) -> None:
    """All orders with their items and the first steps of their timelines, in one trip."""
    ids = [p.command.id for p in placed]
    rows = [(p.command.id, place, i) for p in placed for place, i in enumerate(p.items, start=1)]
    orders = Part(
        "made",
        _ORDERS,
        (
            ids,
            texts([p.command.user_email for p in placed]),
            bigints(p.total_minor for p in placed),
            [p.command.user_id for p in placed],
            shop.provider,
            shop.currency,
            at,
        ),
        len(placed),
    )
    items = Part(
        "items",
        _ITEMS,
        (
            [order_id for order_id, _, _ in rows],
            bigints(place for _, place, _ in rows),
            [item.id for *_, item in rows],
            [item.product_id for *_, item in rows],
            bigints(item.quantity for *_, item in rows),
            bigints(item.price_minor for *_, item in rows),
        ),
        len(rows),
    )
    await tx.write(orders, items, _timeline([(order_id, steps) for order_id in ids]))


def _timeline(told: Iterable[tuple[UUID, Sequence[Step]]]) -> Part:
    rows = [(i, n, step) for i, steps in told for n, step in enumerate(steps, start=1)]
    arguments = (
        [order_id for order_id, _, _ in rows],
        bigints(n for _, n, _ in rows),
        texts([step.happened for *_, step in rows]),
        texts([step.detail for *_, step in rows]),
    )
    return Part("told", _STEPS, arguments, len(rows))


async def tell(tx: Tx, order_id: UUID, *steps: Step) -> None:
    """Add to the timeline of an order that is locked."""
    await tx.write(_timeline([(order_id, steps)]))


_BY_ID: Final = "SELECT * FROM orders WHERE id = ANY($1) ORDER BY id"


async def select_orders(
    tx: Tx, ids: Collection[UUID], *, lock: bool = False, skip_locked: bool = False
) -> dict[UUID, Stored]:
    """Locked in the order of their ids, if so; without those that another has locked, if so."""
    locking = (" FOR NO KEY UPDATE" + " SKIP LOCKED" * skip_locked) * lock
    rows = await tx.driver.fetch(_BY_ID + locking, list(ids))
    items = await _items(tx, [row["id"] for row in rows])
    return {
        row["id"]: Stored(_order(row, items[row["id"]]), Provider(row["provider"])) for row in rows
    }


async def select_page(tx: Tx, wanted: Filter, limit: int) -> list[Order]:
    """Newest first, by ids: a UUIDv7 begins with its time."""
    query = select(Orders.__table__).order_by(Orders.id.desc()).limit(limit)
    if wanted.user_email is not None:
        query = query.where(Orders.user_email == wanted.user_email)
    if wanted.status is not None:
        query = query.where(Orders.status == wanted.status)
    if wanted.after is not None:
        query = query.where(Orders.id < wanted.after)
    rows = (await tx.execute(query)).mappings().all()
    items = await _items(tx, [row["id"] for row in rows])
    return [_order(row, items[row["id"]]) for row in rows]


_ITEMS_OF: Final = """
SELECT order_id, id, product_id, quantity, price FROM order_items
 WHERE order_id = ANY($1) ORDER BY order_id, place
"""


async def _items(tx: Tx, order_ids: Sequence[UUID]) -> Mapping[UUID, tuple[Item, ...]]:
    found: dict[UUID, list[Item]] = {order_id: [] for order_id in order_ids}
    for order_id, *item in await tx.driver.fetch(_ITEMS_OF, order_ids):
        found[order_id].append(Item(*item))
    return {order_id: tuple(items) for order_id, items in found.items()}


def _order(row: Mapping[Any, Any] | asyncpg.Record, items: tuple[Item, ...]) -> Order:
    return Order(
        row["id"],
        row["user_email"],
        Status(row["status"]),
        Money(row["items_total"], row["currency"]),
        items,
        row["user_id"],
        row["payment_id"],
        row["created_at"],
        row["updated_at"],
    )


_SAVED: Final = """
UPDATE orders o
   SET status = new.status, payment_id = new.payment_id, updated_at = clock_timestamp()
  FROM unnest(%1::uuid[], %2::text::text[], %3::text::text[], %4::text::text[])
       AS new(id, status_before, status, payment_id)
 WHERE o.id = new.id AND o.status = new.status_before
RETURNING 1
"""


async def save(tx: Tx, order: Order, status: Status, payment_id: str | None) -> None:
    """Of an order that is locked. Raises `RowsMissing` when it has another status by now."""
    await tx.write(_saved([(order, status, payment_id)]))


def _saved(changes: Sequence[tuple[Order, Status, str | None]]) -> Part:
    arguments = (
        [order.id for order, _, _ in changes],
        texts([order.status for order, _, _ in changes]),
        texts([status for _, status, _ in changes]),
        texts([payment_id for *_, payment_id in changes]),
    )
    return Part("saved", _SAVED, arguments, len(changes))


async def select_payments(tx: Tx, ids: Collection[UUID]) -> dict[UUID, dict[str, Payment]]:
    """Of each order, by the payments' ids."""
    found: dict[UUID, dict[str, Payment]] = {order_id: {} for order_id in ids}
    query = "SELECT order_id, payment_id, status FROM order_payments WHERE order_id = ANY($1)"
    for order_id, payment_id, status in await tx.driver.fetch(query, list(ids)):
        found[order_id][payment_id] = Payment(payment_id, PaymentStatus(status))
    return found


async def select_waited_seconds(tx: Tx, order_id: UUID, payment_id: str) -> float | None:
    """Since the order was placed, if that payment is pending."""
    return await tx.driver.fetchval(
        "SELECT extract(epoch FROM clock_timestamp() - o.created_at)::float8"
        "  FROM orders o JOIN order_payments p ON p.order_id = o.id"
        " WHERE o.id = $1 AND p.payment_id = $2 AND p.status = 'pending'",
        order_id,
        payment_id,
    )


_PAYMENTS: Final = """
INSERT INTO order_payments AS p (order_id, payment_id, status, posting_id)
SELECT * FROM unnest(%1::uuid[], %2::text::text[], %3::text::text[], %4::uuid[])
ON CONFLICT (order_id, payment_id) DO UPDATE
   SET status = excluded.status, posting_id = excluded.posting_id
 WHERE p.status <> 'succeeded'
RETURNING 1
"""


async def save_payment(
    tx: Tx, order_id: UUID, payment: Payment, posting_id: UUID | None = None
) -> None:
    """Money that has come stays. Raises `RowsMissing` when it would not."""
    await tx.write(_payments([(order_id, payment, posting_id)]))


def _payments(payments: Sequence[tuple[UUID, Payment, UUID | None]]) -> Part:
    arguments = (
        [order_id for order_id, _, _ in payments],
        texts([payment.id for _, payment, _ in payments]),
        texts([payment.status for _, payment, _ in payments]),
        [posting_id for *_, posting_id in payments],
    )
    return Part("payments", _PAYMENTS, arguments, len(payments))


def asked(orders: Sequence[Order]) -> tuple[Part, ...]:
    """Of orders that are locked and open: they wait for their payments."""
    return (
        _saved([(order, Status.PAYMENT_PENDING, order.payment_id) for order in orders]),
        _timeline((order.id, (Step(Happened.PAYMENT_REQUESTED),)) for order in orders),
    )


def named(names: Sequence[Name], bound: Sequence[tuple[Order, str]]) -> tuple[Part, ...]:
    """Payments that are new, of orders that are locked; `bound` are those that await theirs."""
    pending = PaymentStatus.PENDING
    return (
        _payments([(n.order_id, Payment(n.payment_id, pending), None) for n in names]),
        _timeline((n.order_id, (Step(Happened.PAYMENT_CREATED, n.payment_id),)) for n in names),
        _saved([(order, order.status, payment_id) for order, payment_id in bound]),
    )


def paid(orders: Sequence[tuple[Order, str, UUID | None]]) -> tuple[Part, ...]:
    """Of orders that are locked and open: each with its payment, and the posting of it."""
    succeeded = PaymentStatus.SUCCEEDED
    return (
        _saved([(order, Status.PAID, payment_id) for order, payment_id, _ in orders]),
        _payments([(o.id, Payment(name, succeeded), posting) for o, name, posting in orders]),
        _timeline(
            (order.id, (Step(Happened.PAYMENT_SUCCEEDED, payment_id), Step(Happened.PAID)))
            for order, payment_id, _ in orders
        ),
    )


async def insert_refund(tx: Tx, order_id: UUID, payment_id: str) -> None:
    """Raises an integrity error for a second one: who decides has locked the order."""
    await tx.driver.execute(
        "INSERT INTO order_refunds (order_id, payment_id, status) VALUES ($1, $2, 'requested')",
        order_id,
        payment_id,
    )


_REFUNDS: Final = select(
    OrderRefunds.order_id,
    OrderRefunds.payment_id,
    Orders.items_total,
    Orders.currency,
    Orders.provider,
    OrderRefunds.status,
).join(Orders, Orders.id == OrderRefunds.order_id)


async def lock_refund(tx: Tx, order_id: UUID, payment_id: str) -> Refund | None:
    query = _REFUNDS.where(
        OrderRefunds.order_id == order_id, OrderRefunds.payment_id == payment_id
    ).with_for_update(of=OrderRefunds)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _refund(row)


async def select_refunds(tx: Tx, wanted: RefundFilter, limit: int) -> list[Refund]:
    """Of the newest orders first."""
    place = tuple_(OrderRefunds.order_id, OrderRefunds.payment_id)
    newest = OrderRefunds.order_id.desc(), OrderRefunds.payment_id.desc()
    query = _REFUNDS.order_by(*newest).limit(limit)
    if wanted.status is not None:
        query = query.where(OrderRefunds.status == wanted.status)
    if wanted.after is not None:
        query = query.where(place < wanted.after)
    return [_refund(row) for row in await tx.execute(query)]


def _refund(row: Row[Any]) -> Refund:
    amount = Money(row.items_total, row.currency)
    provider, status = Provider(row.provider), RefundStatus(row.status)
    return Refund(row.order_id, row.payment_id, amount, provider, status)


async def save_refund(
    tx: Tx, refund: Refund, status: RefundStatus, posting_id: UUID | None = None
) -> None:
    statement = (
        update(OrderRefunds)
        .where(
            OrderRefunds.order_id == refund.order_id,
            OrderRefunds.payment_id == refund.payment_id,
            OrderRefunds.status != RefundStatus.SUCCEEDED,
        )
        .values(status=status, posting_id=posting_id)
    )
    _expect_one("order_refunds", (await tx.execute(statement)).rowcount)


async def has_happened(tx: Tx, order_id: UUID, happened: Happened) -> bool:
    return await tx.driver.fetchval(
        "SELECT EXISTS (SELECT FROM order_events WHERE order_id = $1 AND happened = $2)",
        order_id,
        happened,
    )


async def select_timeline(tx: Tx, order_id: UUID) -> list[TimelineEntry]:
    query = select(OrderEvents.__table__).where(OrderEvents.order_id == order_id)
    rows = await tx.execute(query.order_by(OrderEvents.seq))
    return [TimelineEntry(row.seq, row.happened, row.detail, row.at) for row in rows]


def _expect_one(table: str, rows: int) -> None:
    if rows != 1:
        raise RowsMissing({table: (rows, 1)})
