"""The ledger's SQL. The lock and write statements are the hot path: arrays in, one trip each."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from picopay.infra.db import Tx
from picopay.ledger.model import Account, AccountId, Entry, Move, Posting, PostingKind
from picopay.ledger.tables import Accounts, Postings

_LOCK = """
SELECT a.owner, a.currency, a.may_overdraw, a.debits, a.credits, a.version
  FROM accounts a
  JOIN unnest($1::text[], $2::text[]) AS wanted(owner, currency)
    ON a.owner = wanted.owner AND a.currency = wanted.currency
 WHERE a.owner = ANY($1::text[])
 ORDER BY a.owner, a.currency
   FOR NO KEY UPDATE OF a
"""

# Two sets in one trip: the first as above, then the second, always waiting.
_LOCK_BOTH = """
WITH payers AS ({first}), payees AS ({second})
SELECT * FROM payers UNION ALL SELECT * FROM payees
"""
_LOCK_PAYEES = _LOCK.replace("$2", "$4").replace("$1", "$3")
_LOCK_ALL = _LOCK_BOTH.format(first=_LOCK, second=_LOCK_PAYEES)
_LOCK_FREE = _LOCK_BOTH.format(first=_LOCK + "SKIP LOCKED", second=_LOCK_PAYEES)

_WRITE = """
WITH totals AS (
  UPDATE accounts a
     SET debits = new.debits, credits = new.credits, version = new.version
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
         AS new(owner, currency, debits, credits, version, version_before)
   WHERE a.owner = new.owner AND a.currency = new.currency AND a.version = new.version_before
     AND a.owner = ANY($1::text[])
  RETURNING 1),
written AS (
  INSERT INTO postings (debit_owner, id, credit_owner, currency, amount, kind,
                        debit_balance, debit_version, credit_balance, credit_version)
  SELECT * FROM unnest($7::text[], $8::uuid[], $9::text[], $10::text[], $11::bigint[],
                       $12::text[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[])
  RETURNING 1)
SELECT (SELECT count(*) FROM totals), (SELECT count(*) FROM written)
"""


async def lock_accounts(tx: Tx, account_ids: Sequence[AccountId]) -> list[Account]:
    """Those of the accounts that exist, locked in order until the transaction ends."""
    owners, currencies = [a.owner for a in account_ids], [a.currency for a in account_ids]
    return _accounts(await tx.driver.fetch(_LOCK, owners, currencies))


async def lock_both(
    tx: Tx, payers: Sequence[AccountId], payees: Sequence[AccountId], *, skip_locked: bool
) -> list[Account]:
    """As `lock_accounts` for the payers, and after them for the payees, in one trip.

    With `skip_locked`, payers that are locked elsewhere are left out instead of waited for.
    """
    statement = _LOCK_FREE if skip_locked else _LOCK_ALL
    columns = [
        [getattr(account_id, part) for account_id in side]
        for side in (payers, payees)
        for part in ("owner", "currency")
    ]
    return _accounts(await tx.driver.fetch(statement, *columns))


def _accounts(rows: Iterable[Any]) -> list[Account]:
    return [
        Account(AccountId(owner, currency), overdraw, debits, credited, version)
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


async def write(
    tx: Tx, changed: Sequence[tuple[Account, Account]], postings: Sequence[Posting]
) -> tuple[int, int]:
    """Store postings and the totals they lead to; the counts of accounts and postings written."""
    totals = [
        (a.id.owner, a.id.currency, a.debits, a.credits, a.version, before.version)
        for before, a in changed
    ]
    rows = [
        (
            move.debit.owner, move.id, move.credit.owner, move.debit.currency, move.minor,
            move.kind, *posting[1:],
        )
        for posting in postings
        for move in (posting.move,)
    ]  # fmt: skip
    columns = [*zip(*totals, strict=True), *zip(*rows, strict=True)]
    counts = await tx.driver.fetchrow(_WRITE, *columns)
    assert counts is not None
    return counts[0], counts[1]


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
