"""The SQL of transfers."""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, func, or_, select, update

from picopay.infra.tx import Tx, bigints, texts
from picopay.kernel.money import Money
from picopay.transfers.model import Status, Transfer, TransferCommand
from picopay.transfers.tables import Transfers

_INSERT = """
INSERT INTO transfers (transaction_id, id, source, destination, currency, amount)
SELECT * FROM unnest($1::text::text[], $2::uuid[], $3::text::text[], $4::text::text[],
                     $5::text::text[], $6::text::bigint[])
ON CONFLICT DO NOTHING
RETURNING transaction_id
"""


class Filter(NamedTuple):
    """Which transfers; `after` is the last id of the page before."""

    status: Status | None = None
    account: str | None = None
    after: UUID | None = None


async def insert_absent(tx: Tx, commands: Iterable[TransferCommand]) -> set[str]:
    """Those transaction ids that are new. Sorted, so that two batches never wait crosswise."""
    rows = [
        (c.transaction_id, c.id, c.source, c.destination, c.money.currency, c.money.minor)
        for c in sorted(commands, key=lambda command: command.transaction_id)
    ]
    names, ids, *texted, amounts = zip(*rows, strict=True)
    made = await tx.driver.fetch(_INSERT, texts(names), ids, *map(texts, texted), bigints(amounts))
    return {row[0] for row in made}


async def select_by_ids(tx: Tx, ids: Collection[str], *, lock: bool = False) -> list[Transfer]:
    """In the order of their ids, locked if so."""
    query = select(Transfers.__table__).where(Transfers.transaction_id.in_(ids))
    query = query.order_by(Transfers.transaction_id)
    return [_transfer(row) for row in await tx.execute(query.with_for_update() if lock else query)]


async def mark(tx: Tx, ids: Collection[str], status: Status) -> None:
    processed_at = func.clock_timestamp() if status is Status.PROCESSED else None
    statement = (
        update(Transfers)
        .where(Transfers.transaction_id.in_(ids), Transfers.status != Status.PROCESSED)
        .values(status=status, processed_at=processed_at)
    )
    await tx.execute(statement)


async def select_page(tx: Tx, wanted: Filter, limit: int) -> list[Transfer]:
    """Newest first, by our ids: a UUIDv7 begins with its time."""
    query = select(Transfers.__table__).order_by(Transfers.id.desc()).limit(limit)
    if wanted.status is not None:
        query = query.where(Transfers.status == wanted.status)
    if wanted.account is not None:
        either = or_(Transfers.source == wanted.account, Transfers.destination == wanted.account)
        query = query.where(either)
    if wanted.after is not None:
        query = query.where(Transfers.id < wanted.after)
    return [_transfer(row) for row in await tx.execute(query)]


def _transfer(row: Row[Any]) -> Transfer:
    return Transfer(
        row.transaction_id,
        row.id,
        row.source,
        row.destination,
        Money(row.amount, row.currency),
        Status(row.status),
        row.created_at,
        row.processed_at,
    )
