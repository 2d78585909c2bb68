"""Use cases of asking a provider for payments: before the call, and after it.

Each may be repeated. Orders go together, in one transaction for all that came while the last one
committed; whoever cannot be among them goes by itself.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from picopay.infra import metrics
from picopay.infra.db import Db
from picopay.infra.tx import Tx
from picopay.orders import endings, saga, store
from picopay.orders.errors import PaymentOfAnotherOrder
from picopay.orders.model import OPEN, Ask, Name, Order, Provider, Status, Stored
from picopay.orders.rules import Busy
from picopay.orders.saga import Paying

FREE: Final = "free"  # the payment of an order that costs nothing


async def ask(
    db: Db, order_id: UUID, timeout_seconds: float, request_id: str | None = None
) -> Order | None:
    """Let the order wait for its payment; None if nobody has to be asked for it.

    A closed order is asked for again if an attempt has asked that never heard the answer: the
    provider may hold a payment whose name we do not know, and its money has to come back.
    """
    async with db.begin() as tx:
        stored = await saga.lock(tx, order_id)
        order = stored.order
        if order.status not in OPEN:
            return order if await saga.is_asked_unheard(tx, stored) else None
        free = order.total.minor == 0
        if free:
            await saga.pay(tx, [Paying(stored, FREE, stored.payer)])
        elif order.status is Status.RESERVED:
            asks = [Ask(order_id, saga.current_origin())]
            await saga.ask_for_payments(tx, [order], asks, timeout_seconds)
    if free:
        metrics.orders_paid.inc()
        endings.paid(order_id, request_id=request_id)
        return None
    return _to_be_asked(stored)


async def ask_together(
    db: Db, asks: Sequence[Ask], timeout_seconds: float
) -> list[Order | Busy | None]:
    """As `ask`, of many orders.

    `Busy` for each that another has locked, or that is not just placed with something to pay.
    """

    async def work(tx: Tx) -> list[Order | Busy | None]:
        due = {ask.order_id: ask for ask in asks}
        found = await store.select_orders(tx, due, lock=True, skip_locked=True)
        new = {order_id: stored for order_id, stored in found.items() if _is_new(stored.order)}
        if new:
            orders, theirs = [stored.order for stored in new.values()], [due[i] for i in new]
            await saga.ask_for_payments(tx, orders, theirs, timeout_seconds)
        return [_to_be_asked(new[i]) if i in new else Busy() for i, _ in asks]

    return await db.repeating(work)


def _is_new(order: Order) -> bool:
    return order.status is Status.RESERVED and order.total.minor > 0


def _to_be_asked(stored: Stored) -> Order | None:
    asks = stored.provider is Provider.FAKE and stored.order.payment_id is None
    return stored.order if asks else None


async def bind(db: Db, order_id: UUID, payment_id: str) -> None:
    """The provider has begun a payment; its callback may have been here before.

    Raises `PaymentOfAnotherOrder`.
    """
    async with db.begin() as tx:
        order = (await saga.lock(tx, order_id)).order
        name = Name(order_id, payment_id, saga.current_origin())
        if await saga.bind(tx, {order_id: order}, [name]):
            raise PaymentOfAnotherOrder(payment_id)


async def bind_together(db: Db, names: Sequence[Name]) -> list[Busy | None]:
    """As `bind`, of many orders.

    `Busy` for each that another has locked, whose payment is another's, or that is named twice.
    """

    async def work(tx: Tx) -> list[Busy | None]:
        first = {name.order_id: name for name in reversed(names)}
        found = await store.select_orders(tx, first, lock=True, skip_locked=True)
        orders = {order_id: stored.order for order_id, stored in found.items()}
        ours = [first[order_id] for order_id in orders]
        strangers = await saga.bind(tx, orders, ours)
        bound = {name for name in ours if name.order_id not in strangers}
        return [None if name in bound else Busy() for name in names]

    return await db.repeating(work)
