"""What transfers look like on the wire, where they are called transactions."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from picopay.infra.ids import new_id
from picopay.infra.routing import AmountIn, CurrencyIn, MoneyOut, Page
from picopay.kernel.money import Money
from picopay.transfers.model import Status, Transfer, TransferCommand

# As in a URL: what is visible, and not too long.
NAME_PATTERN: Final = r"^[\x21-\x7e]{1,150}$"

NameIn = Annotated[
    str, Field(pattern=NAME_PATTERN, description="1 to 150 visible ASCII characters.")
]


class TransferIn(BaseModel):
    """Money that moved from one external account to another: `amount` in major units."""

    transaction_id: Annotated[NameIn, Field(examples=["txn_abc123"])]
    source_account: Annotated[NameIn, Field(examples=["acc_user_1"])]
    destination_account: Annotated[NameIn, Field(examples=["acc_merchant_2"])]
    amount: AmountIn
    currency: CurrencyIn

    @field_validator("destination_account")
    @classmethod
    def _another(cls, account: str, known: ValidationInfo) -> str:
        if account == known.data.get("source_account"):
            raise ValueError("must differ from source_account")
        return account

    def to_command(self) -> TransferCommand:
        """Raises `Invalid` for an amount or currency that is not money."""
        money = Money.parse(self.amount, self.currency)
        return TransferCommand(
            new_id(), self.transaction_id, self.source_account, self.destination_account, money
        )


@dataclass(frozen=True, slots=True)
class AcceptedOut:
    transaction_id: str
    status: Literal["accepted"] = "accepted"


@dataclass(frozen=True, slots=True)
class TransferOut:
    transaction_id: str
    source_account: str
    destination_account: str
    amount: MoneyOut
    currency: str
    status: Status
    created_at: datetime
    processed_at: datetime | None

    @classmethod
    def of(cls, transfer: Transfer) -> "TransferOut":
        money = transfer.money
        return cls(
            transfer.transaction_id, transfer.source, transfer.destination, money, money.currency,
            transfer.status, transfer.created_at, transfer.processed_at,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TransferPageOut:
    data: list[TransferOut]
    has_more: bool
    next_cursor: str | None


class TransferQuery(Page):
    status: Status | None = None
    account: str | None = Field(None, pattern=NAME_PATTERN, description="Source or destination.")
