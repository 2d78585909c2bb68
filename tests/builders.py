"""What the tests are about: each value visible, each with a default."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import asyncpg
from sqlalchemy.engine import make_url

from picopay.charges.model import Charge, ChargeCommand, RefundCommand
from picopay.infra.ids import new_id
from picopay.kernel.money import Money
from picopay.ledger.model import Account, AccountId, Entry, Move, PostingKind
from picopay.ledger.rules import Book
from picopay.users.model import DepositCommand

EXTERNAL: Final = ("world", "external:")


def a_charge(
    minor: int = 1000,
    *,
    user_id: int = 1,
    currency: str = "USD",
    key: str | None = None,
    merchant_id: str = "default",
) -> ChargeCommand:
    return ChargeCommand.of(new_id(), merchant_id, user_id, Money(minor, currency), key)


def a_refund(
    charge: Charge,
    minor: int | None = None,
    *,
    key: str | None = None,
    reason: str | None = None,
) -> RefundCommand:
    """Of all that is left, unless it is said how much."""
    return RefundCommand(new_id(), charge, minor, reason, key or str(new_id()))


def a_deposit(
    minor: int = 100_000, *, user_id: int = 1, currency: str = "USD", key: str | None = None
) -> DepositCommand:
    return DepositCommand(new_id(), "default", user_id, Money(minor, currency), key)


def an_account(owner: str = "user:1", balance: int = 0, *, currency: str = "USD") -> Account:
    """An account as one deposit, or none, has left it."""
    account_id = AccountId(owner, currency)
    version = 1 if balance else 0
    return Account(account_id, owner.startswith(EXTERNAL), 0, balance, version)


def a_move(
    minor: int = 1000,
    *,
    debit: str = "user:1",
    credit: str = "merchant:default",
    currency: str = "USD",
) -> Move:
    sides = AccountId(debit, currency), AccountId(credit, currency)
    return Move(new_id(), PostingKind.CHARGE, *sides, minor)


def an_entry(
    version: int, created_at: datetime, *, currency: str = "USD", minor: int = 100
) -> Entry:
    return Entry(new_id(), "charge", "world", currency, minor, minor, version, created_at)


def a_book(*accounts: Account) -> Book:
    return Book(accounts)


def balances(book: Book, account_ids: Iterable[AccountId]) -> dict[AccountId, int]:
    return {account_id: book.balance(account_id) for account_id in account_ids}


async def connect(url: str) -> asyncpg.Connection:
    """A connection of the test's own, to lock and to look past the code under test."""
    plain = make_url(url).set(drivername="postgresql")
    return await asyncpg.connect(plain.render_as_string(hide_password=False))
