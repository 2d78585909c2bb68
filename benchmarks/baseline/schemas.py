"""The baseline's bodies."""

from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from models import Transaction
from pydantic import BaseModel, Field

Amount = Annotated[Decimal, Field(gt=0, max_digits=14, decimal_places=2)]


class ChargeIn(BaseModel):
    user_id: int
    amount: Amount
    currency: Literal["USD"]

    @property
    def cents(self) -> int:
        return int(self.amount * 100)


class TransactionOut(BaseModel):
    id: UUID
    user_id: int
    amount: float
    currency: str
    status: str
    idempotency_key: UUID | None


class ChargeOut(BaseModel):
    message: str = "Charge processed successfully"
    transaction: TransactionOut
    new_balance: float

    @classmethod
    def of(cls, row: Transaction) -> "ChargeOut":
        transaction = TransactionOut(
            id=row.id,
            user_id=row.user_id,
            amount=row.amount / 100,
            currency=row.currency,
            status=row.status,
            idempotency_key=row.idempotency_key,
        )
        return cls(transaction=transaction, new_balance=row.new_balance / 100)
