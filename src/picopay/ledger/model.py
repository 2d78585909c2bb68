"""The ledger's nouns: accounts, postings, entries."""

from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

WORLD: Final = "world"  # the counterpart of money that enters or leaves the system


class PostingKind(StrEnum):
    CHARGE = "charge"
    DEPOSIT = "deposit"
    REFUND = "refund"
    ORDER_PAYMENT = "order_payment"
    ORDER_REFUND = "order_refund"
    TRANSFER = "transfer"


class AccountId(NamedTuple):
    """An owner (`user:1`, `merchant:default`, `world`) in one currency."""

    owner: str
    currency: str


class Account(NamedTuple):
    """Running totals of all postings, in minor units; `version` counts them without a gap."""

    id: AccountId
    may_overdraw: bool
    debits: int = 0
    credits: int = 0
    version: int = 0

    @property
    def balance(self) -> int:
        return self.credits - self.debits


class Move(NamedTuple):
    """What is asked for: `minor` units from `debit` to `credit`, both in one currency."""

    id: UUID
    kind: PostingKind
    debit: AccountId
    credit: AccountId
    minor: int


class Posting(NamedTuple):
    """A move as it was written: with each side's balance and version right after it."""

    move: Move
    debit_balance: int
    debit_version: int
    credit_balance: int
    credit_version: int


class Entry(NamedTuple):
    """One account's side of a posting; `minor` is negative for a debit."""

    posting_id: UUID
    kind: str
    counterparty: str
    currency: str
    minor: int
    balance_after: int
    version: int
    created_at: datetime


def may_overdraw(owner: str) -> bool:
    """Only the outside world may owe: users and merchants cannot spend what they lack."""
    return owner == WORLD or owner.startswith(("external:", "provider:"))


@lru_cache(1024)
def merchant_account(merchant_id: str, currency: str) -> AccountId:
    """Made once for many charges: there are few merchants."""
    return AccountId(f"merchant:{merchant_id}", currency)


def user_owner(user_id: int) -> str:
    return f"user:{user_id}"


def is_user(owner: str) -> bool:
    return owner.startswith("user:")


def user_id_of(owner: str) -> int:
    return int(owner.removeprefix("user:"))
