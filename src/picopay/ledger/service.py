"""The ledger's use cases. Writing always joins a caller's transaction."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from picopay.infra.db import CommitInDoubt, Db
from picopay.infra.tx import Part, RowsMissing, Tx
from picopay.ledger import store
from picopay.ledger.errors import AccountNotFound
from picopay.ledger.model import Account, AccountId, Entry, Posting, may_overdraw
from picopay.ledger.rules import Book, merge_newest

# How long the end of a lost transaction is waited for, behind whoever else holds the account.
LANDED_LOCK_TIMEOUT_MS: Final = 3_000


class PayeesMissing(Exception):
    """Not all of the accounts to be paid exist: open them, and run the transaction again."""

    def __init__(self, account_ids: Iterable[AccountId]) -> None:
        self.account_ids = list(account_ids)
        super().__init__(str(self.account_ids))


@dataclass(frozen=True, slots=True)
class Payers:
    """What became of the accounts a batch wants to debit."""

    locked: list[Account]
    busy: set[AccountId]  # exist, but somebody else holds them
    absent: set[AccountId]


async def lock_payers(tx: Tx, account_ids: Iterable[AccountId]) -> Payers:
    """Lock the accounts to be debited, leaving aside what is locked elsewhere."""
    wanted = sorted(account_ids)
    locked = await store.lock_accounts(tx, wanted, skip_locked=True)
    missing = set(wanted).difference(account.id for account in locked)
    busy = await store.existing(tx, missing) if missing else set[AccountId]()
    return Payers(locked, busy, missing - busy)


async def await_free(
    db: Db,
    first: AccountId,
    others: Collection[AccountId],
    *,
    lock_timeout_ms: int | None = None,
) -> set[AccountId]:
    """Which of the accounts nobody holds. If all are held, `first` is waited for.

    That takes as long as `lock_timeout_ms` at most, by default the pool's, and holds none of the
    others.
    """
    wanted = {first, *others}
    with suppress(asyncpg.LockNotAvailableError):
        async with db.begin(lock_timeout_ms=lock_timeout_ms) as tx:
            if free := wanted - (await lock_payers(tx, wanted)).busy:
                return free
            await store.lock_accounts(tx, [first])
            return {first}
    return set()


async def lock_or_open(tx: Tx, account_ids: Iterable[AccountId]) -> list[Account]:
    """Lock the accounts in the one order, opening those that do not exist yet."""
    wanted = sorted(account_ids)
    locked = await store.lock_accounts(tx, wanted)
    missing = set(wanted).difference(account.id for account in locked)
    if missing:
        await open_accounts(tx, missing)
        locked = await store.lock_accounts(tx, wanted)
    return locked


async def open_accounts(tx: Tx, account_ids: Iterable[AccountId]) -> None:
    """Those that exist already stay as they are."""
    await store.insert_accounts(tx, [Account(a, may_overdraw(a.owner)) for a in account_ids])


async def write(tx: Tx, book: Book, *beside: Part) -> None:
    """Store the book's postings and the totals they lead to, and what else belongs to them.

    Payees' accounts are locked by this. Raises `PayeesMissing`, and so fails the transaction.
    """
    received = book.received()
    parts = (store.totals(book.changed()), *store.payees(received), store.insertion(book.postings))
    try:
        await tx.write(*parts, *beside)
    except RowsMissing as error:
        if "payees" in error.names:
            raise PayeesMissing(account_id for account_id, _, _ in received) from error
        raise


async def landed(db: Db, posting: Posting) -> bool:
    """Whether a posting whose COMMIT was lost is there, and so all that went with it.

    Conclusive because it waits for the debit account's lock, which the lost transaction holds
    until it has ended one way or the other.
    """
    debit = posting.move.debit
    found = False
    with suppress(CommitInDoubt):  # what was read stands, whatever becomes of the reader
        async with db.begin(lock_timeout_ms=LANDED_LOCK_TIMEOUT_MS) as tx:
            await store.lock_accounts(tx, [debit])
            ids = [posting.move.id]
            found = posting.move.id in await store.select_postings(tx, debit.owner, ids)
    return found


async def find_posting(tx: Tx, debit_owner: str, posting_id: UUID) -> Posting:
    """A posting known to exist."""
    return (await store.select_postings(tx, debit_owner, [posting_id]))[posting_id]


async def balances(tx: Tx, owner: str) -> list[Account]:
    """The owner's accounts by currency; empty when there is none."""
    return await store.select_accounts(tx, owner)


async def accounts_of(db: Db, owner: str) -> list[Account]:
    """Raises `AccountNotFound`."""
    found = await db.query(lambda tx: balances(tx, owner))
    if not found:
        raise AccountNotFound(f"{owner!r} has no account")
    return found


async def statement(
    db: Db, owner: str, currency: str | None, bounds: Mapping[str, int], limit: int
) -> tuple[list[Entry], Mapping[str, int]]:
    """The owner's entries, newest first, of one currency or all; and the bounds they lie below.

    `bounds` says for each currency which version to go on below. A statement that begins, without
    any, gets those of now: what is written later stays out of all its pages. One entry more than
    `limit` tells that there are more.
    """
    async with db.read() as tx:
        accounts = await balances(tx, owner)
        bounds = bounds or {a.id.currency: a.version + 1 for a in accounts}
        wanted = [a.id for a in accounts if currency in (None, a.id.currency)]
        sides = [
            await store.select_entries(tx, a, bounds[a.currency], limit + 1)
            for a in wanted
            if a.currency in bounds
        ]
    return merge_newest(sides)[: limit + 1], bounds
