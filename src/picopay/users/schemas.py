"""What users, balances and deposits look like on the wire."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from picopay.access.model import Caller
from picopay.infra.ids import new_id
from picopay.infra.routing import AmountIn, CurrencyIn, MoneyOut, UserIdIn
from picopay.kernel.money import Money
from picopay.ledger.model import Account
from picopay.ledger.schemas import BalanceOut, balances_of
from picopay.users.model import Deposit, DepositCommand, User


class UserIn(BaseModel):
    """A user to be known by this id from now on."""

    id: UserIdIn


class DepositIn(BaseModel):
    """Money that arrives from outside the system."""

    amount: AmountIn
    currency: CurrencyIn

    def to_command(self, caller: Caller, user_id: int, key: str | None) -> DepositCommand:
        """Raises `Invalid` for an amount or currency that is not money."""
        money = Money.parse(self.amount, self.currency)
        return DepositCommand(new_id(), caller.merchant_id, user_id, money, key)


@dataclass(frozen=True, slots=True)
class UserOut:
    id: int
    created_at: datetime
    balances: list[BalanceOut]

    @classmethod
    def of(cls, user: User, accounts: Sequence[Account]) -> "UserOut":
        return cls(user.id, user.created_at, balances_of(accounts))


@dataclass(frozen=True, slots=True)
class DepositOut:
    id: UUID
    user_id: int
    amount: MoneyOut
    currency: str
    new_balance: MoneyOut

    @classmethod
    def of(cls, deposit: Deposit) -> "DepositOut":
        money = deposit.money
        after = Money(deposit.balance_after_minor, money.currency)
        return cls(deposit.id, deposit.user_id, money, money.currency, after)
