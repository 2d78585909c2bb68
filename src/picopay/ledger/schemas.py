"""What accounts and statements look like on the wire."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pydantic import Field

from picopay.infra.routing import MoneyOut, Page
from picopay.kernel.money import Money
from picopay.ledger.model import Account, Entry


class StatementQuery(Page):
    currency: str | None = Field(None, pattern="^[A-Z]{3}$", description="Default: all.")


@dataclass(frozen=True, slots=True)
class BalanceOut:
    currency: str
    balance: MoneyOut


def balances_of(accounts: Sequence[Account]) -> list[BalanceOut]:
    return [
        BalanceOut(account.id.currency, Money(account.balance, account.id.currency))
        for account in accounts
    ]


@dataclass(frozen=True, slots=True)
class AccountsOut:
    owner: str
    balances: list[BalanceOut]


@dataclass(frozen=True, slots=True)
class EntryOut:
    """`amount` is negative when money left the account; `version` counts without a gap."""

    posting_id: UUID
    kind: str
    counterparty: str
    amount: MoneyOut
    currency: str
    balance_after: MoneyOut
    version: int
    created_at: datetime

    @classmethod
    def of(cls, entry: Entry) -> "EntryOut":
        currency = entry.currency
        return cls(
            entry.posting_id, entry.kind, entry.counterparty,
            Money(entry.minor, currency), currency,
            Money(entry.balance_after, currency), entry.version, entry.created_at,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StatementOut:
    data: list[EntryOut]
    has_more: bool
    next_cursor: str | None
