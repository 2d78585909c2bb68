"""The fake provider's nouns: a payment somebody asked for, its end, and how it is told of."""

from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from picopay.kernel.money import Money

DECIDED: Final = "fake_payment.decided"
CONSUMER: Final = "fake_payments"


class Outcome(StrEnum):
    """How a payment ends, in the words of its callback."""

    SUCCESS = "success"
    FAILED = "failed"


class PaymentStatus(StrEnum):
    PENDING = "pending"  # until the payment settles; how it will end is decided, but not told
    SUCCESS = "success"
    FAILED = "failed"
    REFUNDED = "refunded"


class Knobs(NamedTuple):
    """How badly the provider behaves towards one payment.

    `duplicates` is how often each callback is sent, `reorder_seconds` the most that each of them
    is late. A payment that is silent is kept at once, and its creation answered later. `lose`
    sends no callback at all; `conflicting` tells both ends.
    """

    outcome: Outcome | None
    delay_seconds: float
    duplicates: int
    reorder_seconds: float
    silence_seconds: float
    lose: bool
    conflicting: bool


class PaymentCommand(NamedTuple):
    """`callback_url` is None for where PicoPay itself is told."""

    id: UUID
    order_id: str
    money: Money
    callback_url: str | None
    knobs: Knobs


class Callback(NamedTuple):
    """What is to be told, and when: counted from the payment's creation."""

    outcome: Outcome
    delay_seconds: float


class Decision(NamedTuple):
    """Made once, when the payment is; later starts of the provider change nothing."""

    outcome: Outcome
    callbacks: list[Callback]


class Payment(NamedTuple):
    """`is_settled` is the database's word for whether `settles_at` has passed."""

    id: UUID
    order_id: str
    money: Money
    callback_url: str | None
    outcome: Outcome
    knobs: Knobs
    created_at: datetime
    settles_at: datetime
    refunded_at: datetime | None
    is_settled: bool


class Created(NamedTuple):
    """`replayed`: the key had made it before."""

    payment: Payment
    replayed: bool


def aggregate_of(payment_id: UUID) -> str:
    return f"fake_payment:{payment_id}"
