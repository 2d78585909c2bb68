"""Use cases of the fake provider: make a payment, look at it, refund it."""

from collections.abc import Callable
from typing import Final, NamedTuple
from uuid import UUID

from picopay.fake_payments import rules, store
from picopay.fake_payments.errors import FakePaymentNotFound
from picopay.fake_payments.model import (
    CONSUMER,
    DECIDED,
    Callback,
    Created,
    Payment,
    PaymentCommand,
    aggregate_of,
)
from picopay.infra.db import (
    CommitInDoubt,
    ConnectionLost,
    DatabaseUnavailable,
    Db,
    OutcomeUnknown,
)
from picopay.infra.ids import new_id
from picopay.infra.json import dump
from picopay.infra.tx import Tx
from picopay.outbox import service as outbox
from picopay.outbox.model import NewEvent

_CONSUMERS: Final = (CONSUMER,)


class Odds(NamedTuple):
    """`chance` draws from 0 up to, but not, 1."""

    success_rate: float
    chance: Callable[[], float]


async def create(db: Db, command: PaymentCommand, odds: Odds, request_id: str | None) -> Created:
    """Keep the payment, how it ends, and the callbacks that will tell it: once for each id.

    Committed when this returns. A COMMIT whose answer was lost is run again: it finds what the
    first one made. Raises `KeyReused`, or `OutcomeUnknown` when the database stays lost.
    """
    decision = rules.decide(command.knobs, odds.success_rate, odds.chance)
    in_doubt = False

    async def work() -> Created:
        nonlocal in_doubt
        try:
            async with db.begin() as tx:
                new = await store.insert_absent(tx, command, decision.outcome)
                if new:
                    events = [_told(command, each, request_id) for each in decision.callbacks]
                    await outbox.append(tx, events)
                payment = await _find(tx, command.id)
        except CommitInDoubt as error:
            in_doubt = True
            raise ConnectionLost(str(error)) from error
        return Created(payment, replayed=not (new or in_doubt))

    try:
        made = await db.retrying(work)
    except DatabaseUnavailable:
        if in_doubt:
            raise OutcomeUnknown("payment", command.id) from None
        raise
    rules.check_replay(command, made.payment)
    return made


def _told(command: PaymentCommand, callback: Callback, request_id: str | None) -> NewEvent:
    body = {
        "callback_url": command.callback_url,
        "payment_id": command.id,
        "order_id": command.order_id,
        "status": callback.outcome,
    }
    return NewEvent(
        new_id(),
        DECIDED,
        aggregate_of(command.id),
        _CONSUMERS,
        dump(body),
        callback.delay_seconds,
        request_id=request_id,
    )


async def show(db: Db, payment_id: UUID) -> Payment:
    """Raises `FakePaymentNotFound`."""
    return await db.query(lambda tx: _find(tx, payment_id))


async def refund(db: Db, payment_id: UUID) -> bool:
    """Give a payment back, once; whether it was this call that did.

    Raises `FakePaymentNotFound`, `FakePaymentNotRefundable`.
    """

    async def work(tx: Tx) -> bool:
        due = rules.decide_refund(await _find(tx, payment_id, lock=True))
        if due:
            await store.mark_refunded(tx, payment_id)
        return due

    return await db.repeating(work)


async def _find(tx: Tx, payment_id: UUID, *, lock: bool = False) -> Payment:
    payment = await store.select_payment(tx, payment_id, lock=lock)
    if payment is None:
        raise FakePaymentNotFound(str(payment_id))
    return payment
