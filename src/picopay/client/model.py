"""What calls take and give: frozen values, money exact, never a float.

An `amount` with a currency is a `Money`: `.major` is its `Decimal`, `.minor` its whole number of
smallest units. Prices of products and orders are `Decimal`, with their `currency` beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Generic, Literal, TypeVar
from uuid import UUID, uuid4

from picopay.kernel.money import Money

T_co = TypeVar("T_co", covariant=True)

# What a caller may give for an amount, in major units. A float is refused: it is not exact.
Amount = Decimal | int | str


def new_key() -> str:
    """An idempotency key. Store it before the call, and the call survives your process."""
    return str(uuid4())


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """`next_cursor` is where the list goes on, if it does."""

    data: tuple[T_co, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class ChargeMade:
    """A charge that stands. `replayed`: it was made by an earlier call with the same key."""

    id: UUID
    user_id: int
    amount: Money
    idempotency_key: str | None
    new_balance: Money
    replayed: bool


@dataclass(frozen=True, slots=True)
class Charge:
    """A charge, looked at later: `refunded` is how much of it was given back until then."""

    id: UUID
    user_id: int
    amount: Money
    idempotency_key: str | None
    new_balance: Money
    refunded: Money
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ChargeItem:
    """One charge of a batch. It has its key from the start: send the same item to try again."""

    user_id: int
    amount: Amount
    currency: str
    idempotency_key: UUID | str = field(default_factory=new_key)


@dataclass(frozen=True, slots=True)
class ItemProblem:
    """Why one item of a batch was refused."""

    code: str
    detail: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one item: `charge` if it stands, or else `problem`."""

    status: str
    charge: ChargeMade | None
    problem: ItemProblem | None


@dataclass(frozen=True, slots=True)
class Refund:
    """`charge_refunded` is how much of the charge was given back right after it.

    The last two are told by the call that makes it only.
    """

    id: UUID
    charge_id: UUID
    amount: Money
    reason: str | None
    status: str
    charge_refunded: Money
    created_at: datetime
    idempotency_key: str | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """`balances` holds one for each currency that the user has had."""

    id: int
    created_at: datetime
    balances: tuple[Money, ...]


@dataclass(frozen=True, slots=True)
class Deposit:
    id: UUID
    user_id: int
    amount: Money
    new_balance: Money
    idempotency_key: str | None
    replayed: bool


@dataclass(frozen=True, slots=True)
class Account:
    owner: str
    balances: tuple[Money, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One side of a posting: `amount` is negative when money left the account."""

    posting_id: UUID
    kind: str
    counterparty: str
    amount: Money
    balance_after: Money
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OrderLine:
    """What is wanted: one product twice counts as the sum."""

    product_id: UUID | str
    quantity: int


@dataclass(frozen=True, slots=True)
class OrderItem:
    id: UUID
    product_id: UUID
    quantity: int
    price_snapshot: Decimal


@dataclass(frozen=True, slots=True)
class OrderRefund:
    """Money that came in vain; `status` is requested, succeeded or failed: for a person to make."""

    order_id: UUID
    payment_id: str
    amount: Money
    provider: str
    status: str


@dataclass(frozen=True, slots=True)
class Order:
    """`status` is reserved, payment_pending, paid or canceled; items share its `currency`.

    The last two are told by the call that places it only.
    """

    id: UUID
    user_email: str
    status: str
    items_total: Decimal
    currency: str
    items: tuple[OrderItem, ...]
    created_at: datetime
    updated_at: datetime
    idempotency_key: str | None = None
    replayed: bool = False


OrderRefundStatus = Literal["requested", "succeeded", "failed"]
OrderStatus = Literal["reserved", "payment_pending", "paid", "canceled"]


@dataclass(frozen=True, slots=True)
class OrderEvent:
    seq: int
    event: str
    detail: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Product:
    """`archived_at` is told to administrators only."""

    id: UUID
    name: str
    price: Decimal
    currency: str
    stock: int
    is_active: bool
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None


ProductOrder = Literal["created_at", "name", "price"]


@dataclass(frozen=True, slots=True)
class NewTransaction:
    """Money that moved from one external account to another: its id makes a repeat harmless."""

    transaction_id: str
    source_account: str
    destination_account: str
    amount: Amount
    currency: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """`status` is PROCESSING, PROCESSED or FAILED."""

    transaction_id: str
    source_account: str
    destination_account: str
    amount: Money
    status: str
    created_at: datetime
    processed_at: datetime | None


TransactionStatus = Literal["PROCESSING", "PROCESSED", "FAILED"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Work that was given up; `resolution` tells whether somebody has seen to it since."""

    id: UUID
    consumer: str
    type: str
    event_id: UUID
    aggregate: str
    reason: str
    attempts: int
    error: str
    died_at: datetime
    halts: bool
    resolved_at: datetime | None
    resolution: str | None
    resolved_by: str | None
    note: str | None


DeadLetterReason = Literal["exhausted", "rejected", "crashed"]


@dataclass(frozen=True, slots=True)
class DeadLetterFound:
    """With what its event says: JSON, or text if it is none."""

    letter: DeadLetter
    body: object


@dataclass(frozen=True, slots=True)
class Resolved:
    matched: int
    resolved: int


@dataclass(frozen=True, slots=True)
class Health:
    """`status` is healthy, degraded or unhealthy."""

    status: str
    database: str
    redis: str
