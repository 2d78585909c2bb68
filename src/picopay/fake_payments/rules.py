"""What the fake provider decides: how a payment ends, what is told of it and when. Pure."""

from collections.abc import Callable
from typing import Final
from uuid import UUID, uuid5

from picopay.fake_payments.errors import FakePaymentNotRefundable
from picopay.fake_payments.model import (
    Callback,
    Decision,
    Knobs,
    Outcome,
    Payment,
    PaymentCommand,
    PaymentStatus,
)
from picopay.idempotency.errors import KeyReused
from picopay.idempotency.rules import differing

_KEYS: Final = UUID("6f0f7c5e-52b5-5c0e-9d0a-3a1f6c1c7a10")


def payment_id(key: str) -> UUID:
    """The id of the payment that an idempotency key makes.

    It follows from the key, so that the table's primary key is what keeps a key from making two,
    and a unique index on keys, which would not hold the distribution column, is not needed.
    """
    return uuid5(_KEYS, key)


def decide(knobs: Knobs, success_rate: float, chance: Callable[[], float]) -> Decision:
    """How a payment ends and what is told of it; `chance` draws from 0 up to, but not, 1."""
    outcome = decide_outcome(knobs.outcome, success_rate, chance())
    return Decision(outcome, plan_callbacks(outcome, knobs, chance))


def decide_outcome(forced: Outcome | None, success_rate: float, chance: float) -> Outcome:
    """A rate of 0 never succeeds, a rate of 1 always does."""
    if forced is not None:
        return forced
    return Outcome.SUCCESS if chance < success_rate else Outcome.FAILED


def plan_callbacks(outcome: Outcome, knobs: Knobs, chance: Callable[[], float]) -> list[Callback]:
    """The true end first, unless chance makes others overtake it."""
    if knobs.lose:
        return []
    told = [outcome, _opposite(outcome)] if knobs.conflicting else [outcome]
    return [
        Callback(each, knobs.delay_seconds + knobs.reorder_seconds * chance())
        for each in told
        for _ in range(knobs.duplicates)
    ]


def _opposite(outcome: Outcome) -> Outcome:
    return Outcome.FAILED if outcome is Outcome.SUCCESS else Outcome.SUCCESS


def status_of(payment: Payment) -> PaymentStatus:
    if payment.refunded_at is not None:
        return PaymentStatus.REFUNDED
    return PaymentStatus(payment.outcome) if payment.is_settled else PaymentStatus.PENDING


def decide_refund(payment: Payment) -> bool:
    """Whether it is to be refunded now: False if it was before.

    Raises `FakePaymentNotRefundable`.
    """
    status = status_of(payment)
    if status in {PaymentStatus.PENDING, PaymentStatus.FAILED}:
        raise FakePaymentNotRefundable(status)
    return status is PaymentStatus.SUCCESS


def check_replay(command: PaymentCommand, stored: Payment) -> None:
    """A key must mean the same payment; of the knobs the first ones count.

    Raises `KeyReused`.
    """
    different = differing(
        order_id=(command.order_id, stored.order_id),
        amount=(command.money.minor, stored.money.minor),
        currency=(command.money.currency, stored.money.currency),
        callback_url=(command.callback_url, stored.callback_url),
    )
    if different:
        raise KeyReused(different)
