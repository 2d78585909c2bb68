"""What happens to orders later: payments are asked for, polled, timed out and given back."""

from collections.abc import Sequence
from functools import partial
from typing import Final
from uuid import UUID

import orjson

from picopay.infra import metrics
from picopay.infra.db import Db
from picopay.infra.gathering import Gatherer
from picopay.infra.http import Unanswered, Unreachable
from picopay.infra.logs import log
from picopay.infra.tx import Tx
from picopay.orders import asking, endings, payments, rules, saga
from picopay.orders.batcher import BOUND_SECONDS_MAX, until_free
from picopay.orders.gateway import Gateway, ProviderFailed
from picopay.orders.model import (
    PAYMENTS,
    POLL,
    REFUND,
    TIMEOUT,
    WALLETS,
    Ask,
    Name,
    Order,
    Provider,
    Word,
    order_of,
)
from picopay.orders.rules import Busy, Settlement
from picopay.outbox.consumer import Consumer
from picopay.outbox.errors import NotYet, Permanent
from picopay.outbox.model import Event

# At a time, by each worker. Of payments asked for more: each waits for its provider, and for three
# transactions, longer than it takes to work on.
OTHERS_AT_A_TIME: Final = 8
PAYMENTS_AT_A_TIME: Final = 16

# Log events; see docs/reference/logs.md.
TIMED_OUT: Final = "order.payment_timed_out"
POLLED: Final = "payment.polled"
FROM_BALANCE: Final = "payment.from_balance"
GIVEN_UP: Final = "order.payment_given_up"
REFUND_FAILED: Final = "order.refund_failed"


class Payments:
    """Asks the provider for the order's money. A crash in between asks again, with the same key."""

    def __init__(self, db: Db, gateway: Gateway, timeout_seconds: float) -> None:
        self._db = db
        self._gateway = gateway
        self._timeout_seconds = timeout_seconds
        self._asks = Gatherer("payments to be asked for", self._ask_together)
        self._names = Gatherer("payments to be bound", partial(asking.bind_together, db))

    async def _ask_together(self, asks: Sequence[Ask]) -> list[Order | Busy | None]:
        return await asking.ask_together(self._db, asks, self._timeout_seconds)

    async def ask(self, event: Event) -> None:
        order_id, origin = order_of(event.aggregate), saga.current_origin()
        order = await self._asks.submit(Ask(order_id, origin))
        if isinstance(order, Busy):
            seconds, request_id = self._timeout_seconds, event.request_id
            order = await asking.ask(self._db, order_id, seconds, request_id)
        if order is not None:
            payment_id = await self._gateway.create_payment(order_id, order.total)
            # Whoever has locked it is most likely its callback, and soon done.
            name = Name(order_id, payment_id, origin)
            if await until_free(self._names, name, BOUND_SECONDS_MAX):
                await asking.bind(self._db, order_id, payment_id)

    async def poll(self, event: Event) -> None:
        """A callback that never comes must not leave money between the two."""
        order_id, payment_id = order_of(event.aggregate), _payment_of(event)
        waited_seconds = await payments.waited_seconds(self._db, order_id, payment_id)
        if waited_seconds is None:
            return
        again_seconds = rules.poll_again_seconds(waited_seconds)
        try:
            result = (await self._gateway.standing(payment_id)).result
        except (Unreachable, Unanswered, ProviderFailed) as error:
            raise NotYet(again_seconds, str(error)) from error
        if result is None:
            raise NotYet(again_seconds, "the provider does not know yet")
        settlement = await payments.settle(self._db, Word(order_id, payment_id, result))
        log.info(POLLED, **payments.told(order_id, settlement))
        endings.settled(order_id, settlement, request_id=event.request_id)

    async def time_out(self, event: Event) -> None:
        order_id = order_of(event.aggregate)
        if await payments.time_out(self._db, order_id):
            log.info(TIMED_OUT, order_id=str(order_id))
            endings.canceled(order_id, payments.TIMED_OUT, request_id=event.request_id)

    async def refund(self, event: Event) -> None:
        order_id, payment_id = order_of(event.aggregate), _payment_of(event)
        refund = await payments.refund_due(self._db, order_id, payment_id)
        if refund is None:
            return
        if refund.provider is not Provider.FAKE:
            raise Permanent(f"refund payment {payment_id} by hand: nobody can be called for it")
        await self._gateway.refund(payment_id)
        await payments.refunded(self._db, order_id, payment_id)


class Wallets:
    """Pays orders from users' balances; counted once that is committed."""

    def __init__(self) -> None:
        self._settled: dict[UUID, Settlement] = {}

    async def pay(self, tx: Tx, events: Sequence[Event]) -> None:
        for event in sorted(events, key=lambda event: event.aggregate):
            self._settled[event.id] = await payments.pay_from_wallet(tx, order_of(event.aggregate))

    def count(self, events: Sequence[Event]) -> None:
        for event in events:
            settlement = self._settled.pop(event.id)
            payments.count(settlement)
            order_id = order_of(event.aggregate)
            told = payments.told(order_id, settlement)
            log.info(FROM_BALANCE, **told, request_id=event.request_id)
            endings.settled(order_id, settlement, request_id=event.request_id)


class GivingUp:
    """Cancels orders whose payment nobody can be asked for; told once that is committed."""

    def __init__(self) -> None:
        self._canceled: dict[UUID, bool] = {}

    async def give_up(self, tx: Tx, events: Sequence[Event]) -> None:
        for event in events:
            self._canceled[event.id] = await payments.give_up(tx, order_of(event.aggregate))

    def tell(self, events: Sequence[Event]) -> None:
        for event in events:
            if self._canceled.pop(event.id, False):
                order_id = order_of(event.aggregate)
                metrics.orders_canceled.inc()
                log.error(GIVEN_UP, order_id=str(order_id))
                endings.canceled(order_id, payments.GIVEN_UP, request_id=event.request_id)


async def refund_failed(tx: Tx, events: Sequence[Event]) -> None:
    for event in events:
        order_id = order_of(event.aggregate)
        await payments.refund_failed(tx, order_id, _payment_of(event))
        log.error(REFUND_FAILED, order_id=str(order_id))


def _payment_of(event: Event) -> str:
    return str(orjson.loads(event.body)["payment_id"])


def consumers(db: Db, gateway: Gateway, timeout_seconds: float) -> tuple[Consumer, ...]:
    """`db` is for those that call out: they own their transactions."""
    own, wallets = Payments(db, gateway, timeout_seconds), Wallets()
    unasked = GivingUp()
    return (
        Consumer(
            PAYMENTS,
            alone=own.ask,
            on_dead=unasked.give_up,
            on_buried=unasked.tell,
            concurrency=PAYMENTS_AT_A_TIME,
        ),
        Consumer(POLL.consumer, alone=own.poll, concurrency=OTHERS_AT_A_TIME),
        Consumer(TIMEOUT.consumer, alone=own.time_out, concurrency=OTHERS_AT_A_TIME),
        Consumer(REFUND.consumer, alone=own.refund, on_dead=refund_failed),
        # One that waits for its user's account is not to hold up others'.
        Consumer(
            WALLETS,
            together=wallets.pay,
            on_done=wallets.count,
            on_dead=unasked.give_up,
            on_buried=unasked.tell,
            batch_max=1,
            concurrency=OTHERS_AT_A_TIME,
        ),
    )
