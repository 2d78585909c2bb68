"""The SQL of charges."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, Select, select

from picopay.charges.model import Charge, ListedCharge
from picopay.charges.tables import Charges
from picopay.infra.tx import Part, Tx, bigints, texts, uuids
from picopay.kernel.money import Money
from picopay.ledger.model import user_id_of, user_owner

_INSERT = """
INSERT INTO charges (owner, id, merchant_id, currency, idempotency_key, amount, balance_after)
SELECT * FROM unnest(%1::text::text[], %2::text::uuid[], %3::text::text[], %4::text::text[],
                     %5::text::text[], %6::text::bigint[], %7::text::bigint[])
RETURNING 1
"""


class Filter(NamedTuple):
    """Which of a merchant's charges; `after` is the last id of the page before."""

    user_id: int | None = None
    currency: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    after: UUID | None = None


def insertion(charges: Sequence[Charge]) -> Part:
    rows = [
        (
            user_owner(c.user_id), c.id, c.merchant_id, c.money.currency, c.key,
            c.money.minor, c.balance_after_minor,
        )
        for c in charges
    ]  # fmt: skip
    owners, ids, *names, amounts, balances = zip(*rows, strict=True)
    arguments = (texts(owners), uuids(ids), *map(texts, names), bigints(amounts), bigints(balances))
    return Part("charged", _INSERT, arguments, len(rows))


async def select_by_ids(
    tx: Tx, merchant_ids: Collection[str], ids: Collection[UUID]
) -> list[Charge]:
    query = _charges().where(Charges.merchant_id.in_(merchant_ids), Charges.id.in_(ids))
    return [_listed(row).charge for row in await tx.execute(query)]


async def select_charge(tx: Tx, merchant_id: str, charge_id: UUID) -> ListedCharge | None:
    query = _charges().where(Charges.merchant_id == merchant_id, Charges.id == charge_id)
    row = (await tx.execute(query)).one_or_none()
    return _listed(row) if row else None


async def select_page(tx: Tx, merchant_id: str, wanted: Filter, limit: int) -> list[ListedCharge]:
    """Newest first, by id: a UUIDv7 begins with its time."""
    query = _charges().where(Charges.merchant_id == merchant_id)
    if wanted.user_id is not None:
        query = query.where(Charges.owner == user_owner(wanted.user_id))
    if wanted.currency is not None:
        query = query.where(Charges.currency == wanted.currency)
    if wanted.created_after is not None:
        query = query.where(Charges.created_at > wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(Charges.created_at < wanted.created_before)
    if wanted.after is not None:
        query = query.where(Charges.id < wanted.after)
    query = query.order_by(Charges.id.desc()).limit(limit)
    return [_listed(row) for row in await tx.execute(query)]


def _charges() -> Select[Any]:
    return select(Charges.__table__)


def _listed(row: Row[Any]) -> ListedCharge:
    money = Money(row.amount, row.currency)
    charge = Charge(
        row.id, row.merchant_id, user_id_of(row.owner), money, row.balance_after,
        row.idempotency_key,
    )  # fmt: skip
    return ListedCharge(charge, row.created_at, row.refunded)
