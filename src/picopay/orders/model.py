"""The nouns of orders, and which status may follow which."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from picopay.idempotency.model import KeyId, Operation
from picopay.kernel.errors import Refused
from picopay.kernel.money import Money
from picopay.ledger.model import AccountId, merchant_account

SHOP: Final = "default"  # the merchant that orders are paid to
KEYS_OF: Final = "shop"  # whose idempotency keys storefronts use: they have no API key


# Consumers of events; see handlers.py.
PAYMENTS: Final = "payments"
WALLETS: Final = "wallet-payments"

PAYMENT_REQUESTED: Final = "payment.requested"
POLL_SECONDS: Final = 60.0
POLL_SECONDS_MAX: Final = 86_400.0


# Visible ASCII: it becomes part of the provider's URLs, and of our logs.
PAYMENT_ID: Final = r"^[\x21-\x7e]{1,150}$"


class Timer(NamedTuple):
    """Something to be done about an order later."""

    type: str
    consumer: str


TIMEOUT: Final = Timer("payment.due", "payment-timeouts")
POLL: Final = Timer("payment.unsettled", "payment-polls")
REFUND: Final = Timer("refund.due", "refunds")


class Status(StrEnum):
    CREATED = "created"  # before its stock is reserved; never stored
    RESERVED = "reserved"
    PAYMENT_PENDING = "payment_pending"
    PAID = "paid"
    CANCELED = "canceled"


# Drawn in ARCHITECTURE.md; a test compares the two.
TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = {
    Status.CREATED: frozenset({Status.RESERVED}),
    Status.RESERVED: frozenset({Status.PAYMENT_PENDING, Status.PAID, Status.CANCELED}),
    Status.PAYMENT_PENDING: frozenset({Status.PAID, Status.CANCELED}),
    Status.PAID: frozenset(),
    Status.CANCELED: frozenset(),
}
OPEN: Final = frozenset({Status.RESERVED, Status.PAYMENT_PENDING})


class Provider(StrEnum):
    """Who is asked for the money."""

    FAKE = "fake"
    MANUAL = "manual"  # nobody: a signed callback comes from outside
    WALLET = "wallet"  # the ledger: it is taken from a user's balance

    @property
    def account(self) -> str:
        """Whose money it is that comes from outside; it may owe."""
        return f"provider:{self}"

    @property
    def consumer(self) -> str:
        """Who handles `PAYMENT_REQUESTED`."""
        return WALLETS if self is Provider.WALLET else PAYMENTS


class PaymentStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class RefundStatus(StrEnum):
    REQUESTED = "requested"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # given up: a person must see to it


class Result(StrEnum):
    """What a provider says of a payment, once it knows."""

    SUCCESS = "success"
    FAILED = "failed"


class Line(NamedTuple):
    product_id: UUID
    quantity: int


class OrderCommand(NamedTuple):
    """What a customer wants: each product once, in the order of the request."""

    id: UUID
    user_email: str
    lines: tuple[Line, ...]
    key: str
    user_id: int | None = None  # whose balance pays, with the provider `wallet`
    request_id: str | None = None
    refusal: Refused | None = None  # what a new order is told; a replay costs nothing of limits

    @property
    def key_id(self) -> KeyId:
        return KeyId(self.key, KEYS_OF, Operation.ORDER)


class Item(NamedTuple):
    """A line with the price that holds for it, whatever becomes of the product's."""

    id: UUID
    product_id: UUID
    quantity: int
    price_minor: int


class Order(NamedTuple):
    id: UUID
    user_email: str
    status: Status
    total: Money
    items: tuple[Item, ...]
    user_id: int | None
    payment_id: str | None  # the payment that it waits for, or that paid it
    created_at: datetime
    updated_at: datetime


class Stored(NamedTuple):
    """An order, and who is asked for its money."""

    order: Order
    provider: Provider

    @property
    def payer(self) -> AccountId:
        return AccountId(self.provider.account, self.order.total.currency)

    @property
    def shop(self) -> AccountId:
        return merchant_account(SHOP, self.order.total.currency)


class Shop(NamedTuple):
    """What holds for all new orders."""

    provider: Provider
    currency: str


class Ask(NamedTuple):
    """An order whose payment is due; `origin` is what events keep of the request that placed it."""

    order_id: UUID
    origin: str | None = None


class Name(NamedTuple):
    """The payment that a provider has begun for an order; `origin` as in `Ask`."""

    order_id: UUID
    payment_id: str
    origin: str | None = None


class Word(NamedTuple):
    """What a provider says of a payment."""

    order_id: UUID
    payment_id: str
    result: Result


class Payment(NamedTuple):
    """What is known of one payment of an order; it may have several."""

    id: str
    status: PaymentStatus


class Refund(NamedTuple):
    """The whole of one payment; `provider` is who gives it back."""

    order_id: UUID
    payment_id: str
    amount: Money
    provider: Provider
    status: RefundStatus


class Happened(StrEnum):
    """What an order's timeline tells."""

    PLACED = "order.placed"
    PAYMENT_REQUESTED = "payment.requested"
    PAYMENT_CREATED = "payment.created"
    PAYMENT_SUCCEEDED = "payment.succeeded"
    PAYMENT_FAILED = "payment.failed"
    PAYMENT_TIMED_OUT = "payment.timed_out"
    PAYMENT_GIVEN_UP = "payment.given_up"
    PAID = "order.paid"
    CANCELED = "order.canceled"
    REFUND_REQUESTED = "refund.requested"
    REFUNDED = "refund.succeeded"
    REFUND_FAILED = "refund.failed"


class Step(NamedTuple):
    """One line of the timeline; `detail` names a payment, or says why."""

    happened: Happened
    detail: str | None = None


class TimelineEntry(NamedTuple):
    seq: int
    happened: str
    detail: str | None
    at: datetime


class Filter(NamedTuple):
    """Which orders; `after` is the last id of the page before."""

    user_email: str | None = None
    status: Status | None = None
    after: UUID | None = None


class RefundFilter(NamedTuple):
    """Which refunds; `after` names the last one of the page before."""

    status: RefundStatus | None = None
    after: tuple[UUID, str] | None = None


def aggregate_of(order_id: UUID) -> str:
    return f"order:{order_id}"


def order_of(aggregate: str) -> UUID:
    return UUID(aggregate.removeprefix("order:"))
