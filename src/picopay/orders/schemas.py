"""What orders look like on the wire. The first answer and its replays are one rendering."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator

from picopay.infra.ids import new_id
from picopay.infra.routing import MoneyOut, Page, UserIdIn
from picopay.kernel.money import Money
from picopay.orders import rules
from picopay.orders.model import (
    PAYMENT_ID,
    Line,
    Order,
    OrderCommand,
    Provider,
    Refund,
    RefundStatus,
    Result,
    Status,
    TimelineEntry,
)

LINES_MAX: Final = 100
QUANTITY_MAX: Final = 1_000_000
EMAIL_PATTERN: Final = r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$"


def _visible(text: str) -> str:
    """Or one address would have many spellings that look the same."""
    if not text.isprintable():
        raise ValueError("must hold visible characters only")
    return text


EmailIn = Annotated[
    str,
    Field(min_length=3, max_length=254, pattern=EMAIL_PATTERN, examples=["ada@example.com"]),
    AfterValidator(_visible),
]


PaymentIdIn = Annotated[str, Field(pattern=PAYMENT_ID, examples=["pay_4711"])]


class OrderLineIn(BaseModel):
    product_id: UUID
    quantity: int = Field(ge=1, le=QUANTITY_MAX, strict=True)


class OrderIn(BaseModel):
    """One product twice counts as the sum."""

    user_email: EmailIn
    items: list[OrderLineIn] = Field(min_length=1, max_length=LINES_MAX)
    user_id: UserIdIn | None = Field(
        None,
        validate_default=True,
        description="Whose balance pays: only, and always, with `PAYMENT_PROVIDER=wallet`.",
    )

    @field_validator("user_id")
    @classmethod
    def _who_pays(cls, user_id: int | None, shop: ValidationInfo) -> int | None:
        """The context is whether balances pay."""
        if (user_id is not None) != bool(shop.context):
            raise ValueError("is needed, and only then, with PAYMENT_PROVIDER=wallet")
        return user_id

    def to_command(self, key: str, request_id: str | None) -> OrderCommand:
        lines = rules.summed(Line(item.product_id, item.quantity) for item in self.items)
        return OrderCommand(new_id(), self.user_email, lines, key, self.user_id, request_id)


class OrderQuery(Page):
    user_email: str | None = Field(None, max_length=254, pattern=r"^[^\x00]*$")
    status: Status | None = None


class CallbackIn(BaseModel):
    payment_id: PaymentIdIn
    order_id: UUID
    status: Result


@dataclass(frozen=True, slots=True)
class OrderItemOut:
    id: UUID
    product_id: UUID
    quantity: int
    price_snapshot: MoneyOut


@dataclass(frozen=True, slots=True)
class OrderOut:
    """`currency` is that of the total and of every item's price."""

    id: UUID
    user_email: str
    status: Status
    items_total: MoneyOut
    currency: str
    items: list[OrderItemOut]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, order: Order) -> "OrderOut":
        currency = order.total.currency
        items = [
            OrderItemOut(i.id, i.product_id, i.quantity, Money(i.price_minor, currency))
            for i in order.items
        ]
        return cls(
            order.id, order.user_email, order.status, order.total, currency, items,
            order.created_at, order.updated_at,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class OrderPageOut:
    data: list[OrderOut]
    has_more: bool
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class TimelineEntryOut:
    seq: int
    event: str
    detail: str | None
    at: datetime

    @classmethod
    def of(cls, entry: TimelineEntry) -> "TimelineEntryOut":
        return cls(entry.seq, entry.happened, entry.detail, entry.at)


@dataclass(frozen=True, slots=True)
class TimelineOut:
    data: list[TimelineEntryOut]


@dataclass(frozen=True, slots=True)
class SettledOut:
    status: Literal["ok"] = "ok"


class ReturnedIn(BaseModel):
    order_id: UUID
    payment_id: PaymentIdIn


class RefundQuery(Page):
    status: RefundStatus | None = None


@dataclass(frozen=True, slots=True)
class OrderRefundOut:
    order_id: UUID
    payment_id: str
    amount: MoneyOut
    currency: str
    provider: Provider
    status: RefundStatus

    @classmethod
    def of(cls, refund: Refund) -> "OrderRefundOut":
        amount = refund.amount
        return cls(
            refund.order_id, refund.payment_id, amount, amount.currency, refund.provider,
            refund.status,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class OrderRefundPageOut:
    data: list[OrderRefundOut]
    has_more: bool
    next_cursor: str | None
