"""Each order's end is logged once, whoever brings it about, and only when it is committed."""

from typing import Any, cast
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from tests.integration.orders.test_settling import SHOP

from picopay.catalog import service as catalog
from picopay.catalog.model import NewProduct
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.kernel.money import Money
from picopay.orders import asking, service
from picopay.orders.gateway import Gateway
from picopay.orders.handlers import consumers
from picopay.orders.model import PAYMENTS, TIMEOUT, WALLETS, Line, OrderCommand, Provider, Shop
from picopay.orders.rules import Made
from picopay.outbox import service as outbox
from picopay.outbox.consumer import Consumer
from picopay.outbox.errors import LeaseLost
from picopay.outbox.model import Claim, Holder, Reason
from picopay.users import service as users

ENDS = {"order.paid", "order.canceled"}


def consumer(db: Db, name: str) -> Consumer:
    """None of those that are asked here calls a provider."""
    known = consumers(db, cast("Gateway", None), 0)
    return next(consumer for consumer in known if consumer.name == name)


async def placed(db: Db, shop: Shop = SHOP, minor: int = 250) -> UUID:
    product = NewProduct(new_id(), "Lamp", Money(minor, "USD"), 1, is_active=True)
    await catalog.create(db, [product])
    await users.create(db, 1)
    payer = 1 if shop.provider is Provider.WALLET else None
    lines = (Line(product.id, 1),)
    command = OrderCommand(new_id(), "ada@example.com", lines, str(new_id()), payer, "the-request")
    (made,) = await service.place_batch(db, shop, [command])
    assert isinstance(made, Made)
    return made.order.id


async def claimed(db: Db, by: Consumer) -> Claim:
    (claim,) = await outbox.claim(db, by, 10, Holder("test:1:a", 30))
    return claim


def ends(logged: list[Any]) -> list[tuple[object, ...]]:
    return [
        (line["event"], line["order_id"], line.get("why"), line.get("request_id"))
        for line in logged
        if line["event"] in ENDS
    ]


async def test_a_payment_that_never_comes(db: Db) -> None:
    order_id, timeouts = await placed(db), consumer(db, TIMEOUT.consumer)
    await asking.ask(db, order_id, 0)
    assert timeouts.alone is not None
    with capture_logs() as logged:
        due = await claimed(db, timeouts)
        for _ in range(2):
            await timeouts.alone(due.event)
    why = "the payment did not come"
    assert ends(logged) == [("order.canceled", str(order_id), why, due.event.request_id)]


async def test_a_payment_that_cannot_be_asked_for(db: Db) -> None:
    order_id, asking = await placed(db), consumer(db, PAYMENTS)
    claim = await claimed(db, asking)
    stale = claim._replace(token=new_id())
    with capture_logs() as logged:
        with pytest.raises(LeaseLost):
            await outbox.bury(db, asking, stale, Reason.EXHAUSTED, "no")
        assert ends(logged) == []
        await outbox.bury(db, asking, claim, Reason.EXHAUSTED, "no")
    why = "the payment could not be requested"
    assert ends(logged) == [("order.canceled", str(order_id), why, "the-request")]


async def test_a_balance_that_does_not_cover_it(db: Db) -> None:
    order_id, wallets = await placed(db, Shop(Provider.WALLET, "USD")), consumer(db, WALLETS)
    with capture_logs() as logged:
        await outbox.handle_together(db, wallets, [await claimed(db, wallets)])
    why = "the balance does not cover it"
    assert ends(logged) == [("order.canceled", str(order_id), why, "the-request")]


async def test_an_order_that_costs_nothing(db: Db) -> None:
    order_id, asking = await placed(db, minor=0), consumer(db, PAYMENTS)
    assert asking.alone is not None
    with capture_logs() as logged:
        event = (await claimed(db, asking)).event
        for _ in range(2):
            await asking.alone(event)
    assert ends(logged) == [("order.paid", str(order_id), None, "the-request")]
