"""Payments of many orders are asked for and bound in one transaction, each as it would be alone."""

from uuid import UUID

import asyncpg
import pytest

from picopay.catalog import service as catalog
from picopay.catalog.model import NewProduct
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.kernel.money import Money
from picopay.orders import asking, payments, service
from picopay.orders.errors import PaymentOfAnotherOrder
from picopay.orders.model import Ask, Line, Name, OrderCommand, Provider, Result, Shop, Status, Word
from picopay.orders.rules import Busy, Made, Pay

ORDERS = 12
TIMEOUT_SECONDS = 900
STEPS = "SELECT count(*), count(DISTINCT xmin::text) FROM order_events WHERE happened = $1"
OWED = "SELECT request_id FROM outbox_events WHERE type = $1 ORDER BY aggregate"


async def placed(db: Db, provider: Provider = Provider.FAKE, *, price: int = 250) -> list[UUID]:
    product = NewProduct(new_id(), "Lamp", Money(price, "USD"), ORDERS, is_active=True)
    await catalog.create(db, [product])
    commands = [
        OrderCommand(new_id(), "ada@example.com", (Line(product.id, 1),), str(new_id()))
        for _ in range(ORDERS)
    ]
    outcomes = await service.place_batch(db, Shop(provider, "USD"), commands)
    return sorted(outcome.order.id for outcome in outcomes if isinstance(outcome, Made))


def payment_of(order_id: UUID) -> str:
    return f"payment-of-{order_id}"


async def statuses(db: Db, orders: list[UUID]) -> set[Status]:
    return {(await service.show(db, order_id)).status for order_id in orders}


async def test_what_is_due_at_once_is_asked_for_together(db: Db, owner: asyncpg.Connection) -> None:
    orders = await placed(db)
    asks = [Ask(order_id, f"request-{number}") for number, order_id in enumerate(orders)]
    found = await asking.ask_together(db, asks, TIMEOUT_SECONDS)
    assert [order.id for order in found if order and not isinstance(order, Busy)] == orders
    assert await statuses(db, orders) == {Status.PAYMENT_PENDING}
    assert tuple(await owner.fetchrow(STEPS, "payment.requested") or ()) == (ORDERS, 1)
    origins = [row["request_id"] for row in await owner.fetch(OWED, "payment.due")]
    assert origins == [ask.origin for ask in asks]


async def test_who_was_asked_for_is_locked_or_costs_nothing_goes_by_itself(
    db: Db, owner: asyncpg.Connection
) -> None:
    before, locked, fresh, *_ = await placed(db)
    (free, *_) = await placed(db, price=0)
    asks = [Ask(order_id) for order_id in (before, locked, fresh, free, new_id())]
    await asking.ask_together(db, asks[:1], TIMEOUT_SECONDS)
    async with owner.transaction():
        await owner.execute("SELECT FROM orders WHERE id = $1 FOR UPDATE", locked)
        told = await asking.ask_together(db, asks, TIMEOUT_SECONDS)
    assert [isinstance(each, Busy) for each in told] == [True, True, False, True, True]
    again = await asking.ask(db, before, TIMEOUT_SECONDS)
    assert again is not None  # the provider has not been heard of yet
    assert again.id == before
    assert await asking.ask(db, free, TIMEOUT_SECONDS) is None
    assert await statuses(db, [free]) == {Status.PAID}


async def test_nobody_is_asked_for_what_a_person_collects(db: Db) -> None:
    orders = await placed(db, Provider.MANUAL)
    asks = [Ask(order_id) for order_id in orders]
    assert await asking.ask_together(db, asks, TIMEOUT_SECONDS) == [None] * ORDERS
    assert await statuses(db, orders) == {Status.PAYMENT_PENDING}


async def test_payments_that_are_named_at_once_are_bound_together(
    db: Db, owner: asyncpg.Connection
) -> None:
    orders = await placed(db)
    await asking.ask_together(db, [Ask(order_id) for order_id in orders], TIMEOUT_SECONDS)
    paid, *others = orders
    assert await payments.settle(db, Word(paid, payment_of(paid), Result.SUCCESS)) == Pay()
    names = [Name(order_id, payment_of(order_id), "its-request") for order_id in orders]
    assert await asking.bind_together(db, names) == [None] * ORDERS
    assert tuple(await owner.fetchrow(STEPS, "payment.created") or ()) == (ORDERS - 1, 1)
    assert await owner.fetch(OWED, "payment.unsettled") == [("its-request",)] * (ORDERS - 1)
    assert [(await service.show(db, i)).payment_id for i in others] == list(map(payment_of, others))


async def test_a_strangers_payment_a_second_name_and_a_locked_order_go_by_themselves(
    db: Db, owner: asyncpg.Connection
) -> None:
    mine, thief, twice, locked, fine, *_ = await placed(db)
    names = [
        Name(mine, payment_of(mine)),
        Name(thief, payment_of(mine)),
        Name(twice, payment_of(twice)),
        Name(twice, "another"),
        Name(locked, payment_of(locked)),
        Name(fine, payment_of(fine)),
    ]
    async with owner.transaction():
        await owner.execute("SELECT FROM orders WHERE id = $1 FOR UPDATE", locked)
        told = await asking.bind_together(db, names)
    assert [isinstance(each, Busy) for each in told] == [False, True, False, True, True, False]
    with pytest.raises(PaymentOfAnotherOrder):
        await asking.bind(db, thief, payment_of(mine))
    await asking.bind(db, locked, payment_of(locked))
    assert (await service.show(db, thief)).payment_id is None
    assert (await service.show(db, twice)).payment_id == payment_of(twice)
