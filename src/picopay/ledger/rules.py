"""The pure heart of the ledger: what a sequence of moves does to the accounts it touches."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from heapq import merge
from typing import Final

from picopay.kernel.money import Money
from picopay.kernel.tuples import new
from picopay.ledger.errors import AccountLimit, InsufficientFunds
from picopay.ledger.model import Account, AccountId, Entry, Move, Posting

TOTAL_MAX: Final = 2**63 - 1  # the column's width


class Book:
    """Locked accounts and the postings made on them, one after the other, before any is written.

    Nothing here does I/O: a caller opens a book on accounts it has locked, posts moves in order,
    and gives the book to `ledger.service.write`, which stores postings and totals together.

    Accounts that only receive, `payees`, need not be known: what they receive is summed up here
    and added to what they hold by the write. Their side of a posting is counted from zero.
    """

    __slots__ = ("_accounts", "_before", "_payees", "postings")

    def __init__(self, accounts: Iterable[Account], payees: Iterable[AccountId] = ()) -> None:
        self._before = {account.id: account for account in accounts}
        self._accounts = {
            account.id: [account.debits, account.credits, account.version]
            for account in self._before.values()
        }
        self._payees = {payee: [0, 0, 0] for payee in payees}
        self.postings: list[Posting] = []

    def __contains__(self, account_id: AccountId) -> bool:
        return account_id in self._accounts

    def balance(self, account_id: AccountId) -> int:
        debits, credited, _ = self._accounts[account_id]
        return credited - debits

    def post(self, move: Move) -> Posting:
        """Raises `InsufficientFunds` or `AccountLimit`, and then has changed nothing."""
        _, _, debit_id, credit_id, minor = move
        debit = self._accounts[debit_id]
        credit = self._payees.get(credit_id) or self._accounts[credit_id]
        available = debit[1] - debit[0]
        if available < minor and not self._before[debit_id].may_overdraw:
            raise insufficient(available, Money(minor, debit_id.currency))
        if debit[0] + minor > TOTAL_MAX or credit[1] + minor > TOTAL_MAX:
            raise AccountLimit
        debit[0] += minor
        debit[2] += 1
        credit[1] += minor
        credit[2] += 1
        sides = (available - minor, debit[2], credit[1] - credit[0], credit[2])
        posting = new(Posting, (move, *sides))
        self.postings.append(posting)
        return posting

    def changed(self) -> list[tuple[Account, Account]]:
        """(before, after) of each account that a posting has touched, in lock order."""
        pairs: list[tuple[Account, Account]] = []
        for account_id in sorted(self._accounts):
            before = self._before[account_id]
            debits, credited, version = self._accounts[account_id]
            if version != before.version:
                assert before.may_overdraw or debits <= credited
                after = (account_id, before.may_overdraw, debits, credited, version)
                pairs.append((before, new(Account, after)))
        return pairs

    def received(self) -> list[tuple[AccountId, int, int]]:
        """(account, minor units, postings) of each payee that was paid, in lock order."""
        return [
            (payee, received, postings)
            for payee, (_, received, postings) in sorted(self._payees.items())
            if postings
        ]


def insufficient(available: int, required: Money) -> InsufficientFunds:
    balance = Money(available, required.currency)
    return InsufficientFunds(
        f"the balance is {balance.major} {balance.currency}, the amount is {required.major}",
        balance=balance.major,
        required=required.major,
        currency=required.currency,
    )


def merge_newest(statements: Iterable[Sequence[Entry]]) -> list[Entry]:
    """Several accounts' entries as one list, by time; each account's own order is its versions'."""
    return list(merge(*statements, key=_when, reverse=True))


def _when(entry: Entry) -> datetime:
    return entry.created_at


def bounds_below(entries: Iterable[Entry], bounds: Mapping[str, int]) -> dict[str, int]:
    """Where each currency's statement goes on after these entries, newest first, were shown."""
    return dict(bounds) | {entry.currency: entry.version for entry in entries}
