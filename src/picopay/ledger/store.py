"""The ledger's SQL. The lock and write statements are the hot path: arrays in, one trip each."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from picopay.infra.tx import Part, Tx, bigints, texts, uuids
from picopay.kernel.tuples import new
from picopay.ledger.model import Account, AccountId, Entry, Move, Posting, PostingKind
from picopay.ledger.tables import Accounts, Postings

_LOCK = """
SELECT a.owner, a.currency, a.may_overdraw, a.debits, a.credits, a.version
  FROM accounts a
  JOIN unnest($1::text[], $2::text::text[]) AS wanted(owner, currency)
    ON a.owner = wanted.owner AND a.currency = wanted.currency
 WHERE a.owner = ANY($1::text[])
 ORDER BY a.owner, a.currency
   FOR NO KEY UPDATE OF a
"""
_LOCK_FREE = _LOCK + "SKIP LOCKED"

# Of accounts that are locked already.
_TOTALS = """
UPDATE accounts a
   SET debits = new.debits, credits = new.credits, version = new.version
  FROM unnest(%1::text[], %2::text::text[], %3::text::bigint[], %4::text::bigint[],
              %5::text::bigint[], %6::text::bigint[])
       AS new(owner, currency, debits, credits, version, version_before)
 WHERE a.owner = new.owner AND a.currency = new.currency AND a.version = new.version_before
   AND a.owner = ANY(%1::text[])
RETURNING 1
"""

# Locked here, in order, and only now: everybody pays them.
_PAYEES = """
SELECT a.owner, a.currency, a.credits - a.debits AS balance, a.version, paid.minor, paid.postings
  FROM accounts a
  JOIN unnest(%1::text[], %2::text[], %3::text::bigint[], %4::text::bigint[])
       AS paid(owner, currency, minor, postings)
    ON a.owner = paid.owner AND a.currency = paid.currency
 WHERE a.owner = ANY(%1::text[])
 ORDER BY a.owner, a.currency
   FOR NO KEY UPDATE OF a
"""

_RECEIVED = """
UPDATE accounts a
   SET credits = a.credits + payees.minor, version = a.version + payees.postings
  FROM payees
 WHERE a.owner = payees.owner AND a.currency = payees.currency
RETURNING 1
"""

_POSTINGS = """
INSERT INTO postings (debit_owner, id, credit_owner, currency, kind,
                      amount, debit_balance, debit_version, credit_balance, credit_version)
SELECT new.debit_owner, new.id, new.credit_owner, new.currency, new.kind,
       new.amount, new.debit_balance, new.debit_version,
       new.credit_balance + coalesce(payees.balance, 0),
       new.credit_version + coalesce(payees.version, 0)
  FROM unnest(%1::text::text[], %2::text::uuid[], %3::text::text[], %4::text::text[],
              %5::text::text[],
              %6::text::bigint[], %7::text::bigint[], %8::text::bigint[],
              %9::text::bigint[], %10::text::bigint[])
       AS new(debit_owner, id, credit_owner, currency, kind,
              amount, debit_balance, debit_version, credit_balance, credit_version)
  LEFT JOIN payees ON payees.owner = new.credit_owner AND payees.currency = new.currency
RETURNING 1
"""


async def lock_accounts(
    tx: Tx, account_ids: Sequence[AccountId], *, skip_locked: bool = False
) -> list[Account]:
    """Those of the accounts that exist, locked in order until the transaction ends.

    With `skip_locked`, accounts that are locked elsewhere are left out instead of waited for.
    """
    statement = _LOCK_FREE if skip_locked else _LOCK
    owners, currencies = [a.owner for a in account_ids], [a.currency for a in account_ids]
    rows = await tx.driver.fetch(statement, owners, texts(currencies))
    return [
        new(Account, (new(AccountId, (owner, currency)), overdraw, debits, credited, version))
        for owner, currency, overdraw, debits, credited, version in rows
    ]


async def existing(tx: Tx, account_ids: Iterable[AccountId]) -> set[AccountId]:
    wanted = tuple_(Accounts.owner, Accounts.currency).in_(list(account_ids))
    rows = await tx.execute(select(Accounts.owner, Accounts.currency).where(wanted))
    return {AccountId(*row) for row in rows}


async def insert_accounts(tx: Tx, accounts: Iterable[Account]) -> None:
    rows = [
        {"owner": a.id.owner, "currency": a.id.currency, "may_overdraw": a.may_overdraw}
        for a in sorted(accounts)
    ]
    await tx.execute(insert(Accounts).values(rows).on_conflict_do_nothing())


def totals(changed: Sequence[tuple[Account, Account]]) -> Part:
    """The totals of accounts (before, after), unless somebody changed one under its lock."""
    rows = [
        (a.id.owner, a.id.currency, a.debits, a.credits, a.version, before.version)
        for before, a in changed
    ]
    owners, currencies, *numbers = zip(*rows, strict=True)
    return Part("totals", _TOTALS, (owners, texts(currencies), *map(bigints, numbers)), len(rows))


def payees(received: Sequence[tuple[AccountId, int, int]]) -> tuple[Part, Part]:
    """What (account, minor units, postings) receives, on top of whatever it holds."""
    arguments = (
        [account_id.owner for account_id, _, _ in received],
        [account_id.currency for account_id, _, _ in received],
        bigints(minor for _, minor, _ in received),
        bigints(postings for _, _, postings in received),
    )
    return (
        Part("payees", _PAYEES, arguments, len(received)),
        Part("received", _RECEIVED, (), len(received)),
    )


def insertion(postings: Sequence[Posting]) -> Part:
    """The postings; to the balances and versions of payees is added what is found in `payees`."""
    rows = [
        (
            move.debit.owner, move.id, move.credit.owner, move.debit.currency, move.kind,
            move.minor, *posting[1:],
        )
        for posting in postings
        for move in (posting.move,)
    ]  # fmt: skip
    debits, ids, credited, currencies, kinds, *numbers = zip(*rows, strict=True)
    names = (texts(debits), uuids(ids), texts(credited), texts(currencies), texts(kinds))
    return Part("posted", _POSTINGS, (*names, *map(bigints, numbers)), len(rows))


async def select_postings(tx: Tx, debit_owner: str, ids: Collection[UUID]) -> dict[UUID, Posting]:
    chosen = (Postings.debit_owner == debit_owner, Postings.id.in_(ids))
    rows = await tx.execute(select(Postings.__table__).where(*chosen))
    return {row.id: _posting(row) for row in rows}


def _posting(row: Row[Any]) -> Posting:
    debit = AccountId(row.debit_owner, row.currency)
    credit = AccountId(row.credit_owner, row.currency)
    move = Move(row.id, PostingKind(row.kind), debit, credit, row.amount)
    return Posting(
        move, row.debit_balance, row.debit_version, row.credit_balance, row.credit_version
    )


async def select_accounts(tx: Tx, owner: str) -> list[Account]:
    query = select(Accounts.__table__).where(Accounts.owner == owner).order_by(Accounts.currency)
    return [
        Account(
            AccountId(row.owner, row.currency), row.may_overdraw, row.debits, row.credits,
            row.version,
        )
        for row in await tx.execute(query)
    ]  # fmt: skip


async def select_entries(
    tx: Tx, account_id: AccountId, before_version: int, limit: int
) -> list[Entry]:
    """The account's entries, newest first: one index range for each side, merged."""
    debit = select(
        Postings.id, Postings.kind, Postings.credit_owner.label("counterparty"),
        Postings.currency, (-Postings.amount).label("minor"),
        Postings.debit_balance.label("balance_after"), Postings.debit_version.label("version"),
        Postings.created_at,
    ).where(Postings.debit_owner == account_id.owner)  # fmt: skip
    credit = select(
        Postings.id, Postings.kind, Postings.debit_owner,
        Postings.currency, Postings.amount, Postings.credit_balance, Postings.credit_version,
        Postings.created_at,
    ).where(Postings.credit_owner == account_id.owner)  # fmt: skip
    sides = [
        side.where(
            Postings.currency == account_id.currency,
            version < before_version,
        )
        .order_by(version.desc())
        .limit(limit)
        for side, version in (
            (debit, Postings.debit_version),
            (credit, Postings.credit_version),
        )
    ]
    merged = sides[0].union_all(sides[1]).subquery()
    query = select(merged).order_by(merged.c.version.desc()).limit(limit)
    return [Entry(*row) for row in await tx.execute(query)]
