"""Each invariant of orders names its drift: what is changed behind the system's back is found."""

from collections.abc import Iterator
from uuid import UUID

import asyncpg
import pytest

from picopay.catalog import service as catalog
from picopay.catalog.model import NewProduct
from picopay.cli.ledger import verify
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.kernel.money import Money
from picopay.orders import asking, payments, service
from picopay.orders.model import Line, OrderCommand, Provider, Result, Shop, Word
from picopay.orders.rules import Made

SHOP = Shop(Provider.FAKE, "USD")

# What is done to the tables, which invariant finds it, and what it says.
TAMPERINGS = {
    "a total changed": (
        "UPDATE orders SET items_total = items_total + 1",
        *("order-totals", "comes to 501, its items to 500"),
    ),
    "a price changed": (
        "UPDATE order_items SET price = price - 1",
        *("order-totals", "comes to 500, its items to 498"),
    ),
    "stock never taken": (
        "DELETE FROM stock_moves WHERE reason = 'reserved'",
        *("order-stock", "it has 2, took 0"),
    ),
    "stock never returned": (
        "DELETE FROM stock_moves WHERE reason = 'returned'",
        *("order-stock", "took 2 and returned 0"),
    ),
    "a canceled order revived": (
        "UPDATE orders SET status = 'reserved' WHERE status = 'canceled'",
        *("order-stock", "is reserved: of product"),
    ),
    "a payment that is not booked": (
        "DELETE FROM postings WHERE kind = 'order_payment'",
        *("order-payments", "is not on the ledger"),
    ),
    "a booking without its payment": (
        "DELETE FROM order_payments",
        *("order-payments", "pays no order"),
    ),
    "a payment by somebody else": (
        "UPDATE orders SET provider = 'manual'",
        *("order-payments", "pays no order"),
    ),
    "the name of a payment lost": (
        "DELETE FROM order_payments",
        *("payment-names", "which has no such payment"),
    ),
    "a payment that was made for another": (
        """UPDATE idempotency_keys SET resource_id = gen_random_uuid()
            WHERE operation = 'payment'""",
        *("payment-names", "was made for order"),
    ),
    "a payment that nobody asks about": (
        """DELETE FROM outbox_queue;
           UPDATE order_payments SET status = 'pending', posting_id = NULL""",
        *("open-payments", "nobody is going to ask about the end of payment"),
    ),
    "a refund that nobody asks for": (
        """DELETE FROM outbox_queue;
           UPDATE order_refunds SET status = 'requested', posting_id = NULL""",
        *("open-payments", "nobody is going to ask about the refund of payment"),
    ),
    "a refund never asked for": (
        "DELETE FROM order_refunds",
        *("order-refunds", "came in vain, and is not asked back"),
    ),
    "a refund that is not booked": (
        "DELETE FROM postings WHERE kind = 'order_refund'",
        *("order-refunds", "is not on the ledger"),
    ),
    "a paid order without its payment": (
        "UPDATE order_payments SET status = 'failed', posting_id = NULL",
        *("paid-orders", "is paid, and nothing is going to happen to it"),
    ),
    "an open order that nobody asks for": (
        """DELETE FROM outbox_queue;
           UPDATE orders SET status = 'payment_pending' WHERE status = 'paid'""",
        *("paid-orders", "is payment_pending, and nothing is going to happen to it"),
    ),
}


async def placed(db: Db, product_id: UUID) -> Word:
    command = OrderCommand(new_id(), "ada@example.com", (Line(product_id, 2),), str(new_id()))
    (made,) = await service.place_batch(db, SHOP, [command])
    assert isinstance(made, Made)
    return Word(made.order.id, f"payment-of-{made.order.id}", Result.SUCCESS)


@pytest.fixture
async def shop(db: Db) -> Db:
    """One order is paid; another was canceled before its money came, which was given back."""
    lamp = NewProduct(new_id(), "Lamp", Money(250, "USD"), 10, is_active=True)
    await catalog.create(db, [lamp])
    paid, late = await placed(db, lamp.id), await placed(db, lamp.id)
    await asking.bind(db, paid.order_id, paid.payment_id)
    await payments.settle(db, paid)
    await payments.time_out(db, late.order_id)
    await payments.settle(db, late)
    await payments.refunded(db, late.order_id, late.payment_id)
    return db


async def drifts(db: Db) -> dict[str, list[str]]:
    return {report.name: report.named for report in await verify(db) if report.drifts}


def invariants() -> Iterator[str]:
    for _, invariant, _ in TAMPERINGS.values():
        yield invariant


async def test_an_honest_shop_is_clean_and_each_of_its_invariants_can_be_broken(shop: Db) -> None:
    assert await drifts(shop) == {}
    named = {report.name for report in await verify(shop)}
    of_orders = {
        name for name in named if name.startswith(("order-", "payment-", "paid-", "open-"))
    }
    assert of_orders == set(invariants())


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_what_was_changed_is_named(
    shop: Db, owner: asyncpg.Connection, tampering: str
) -> None:
    statements, invariant, said = TAMPERINGS[tampering]
    await owner.execute(statements)
    named = (await drifts(shop)).get(invariant, [])
    assert any(said in drift for drift in named), named
