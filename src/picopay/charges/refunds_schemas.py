"""What a refund looks like on the wire. The first answer and its replays are one rendering."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from picopay.charges.model import Charge, Refund, RefundCommand
from picopay.infra.ids import new_id
from picopay.infra.routing import AmountIn, MoneyOut
from picopay.kernel.money import Money

REASON_CHARACTERS_MAX: Final = 200

ReasonIn = Annotated[str, Field(max_length=REASON_CHARACTERS_MAX, pattern=r"^[^\x00-\x1f\x7f]+$")]


class RefundIn(BaseModel):
    """What is to be given back: `amount` in major units of the charge's currency.

    Without an amount, all that is left; so nothing that is not known here is overlooked.
    """

    model_config = ConfigDict(extra="forbid")

    amount: AmountIn | None = Field(None, description="Default: all that is left.")
    reason: ReasonIn | None = Field(None, description="For people; shown as it is.")

    def to_command(self, charge: Charge, key: str) -> RefundCommand:
        """Raises `Invalid` for an amount that is not money of the charge's currency."""
        minor = None
        if self.amount is not None:
            minor = Money.parse(self.amount, charge.money.currency).minor
        return RefundCommand(new_id(), charge, minor, self.reason, key)


@dataclass(frozen=True, slots=True)
class RefundOut:
    """`charge_refunded` is how much of the charge was refunded right after it."""

    id: UUID
    charge_id: UUID
    amount: MoneyOut
    currency: str
    reason: str | None
    status: Literal["succeeded"]
    charge_refunded: MoneyOut
    created_at: datetime

    @classmethod
    def of(cls, refund: Refund) -> "RefundOut":
        currency = refund.money.currency
        return cls(
            refund.id, refund.charge_id, refund.money, currency, refund.reason, "succeeded",
            Money(refund.refunded_after_minor, currency), refund.created_at,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RefundPageOut:
    data: list[RefundOut]
    has_more: bool
    next_cursor: str | None
