"""The SQL of refunds."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Select, select

from picopay.charges.model import Charge, Refund, RefundCommand
from picopay.charges.tables import ChargeRefunds
from picopay.infra.tx import Part, Tx
from picopay.kernel.money import Money
from picopay.ledger.model import user_owner

_LOCK: Final = """
SELECT refunded, now() FROM charges WHERE owner = $1 AND id = $2 FOR NO KEY UPDATE
"""

_INSERT: Final = """
INSERT INTO charge_refunds (owner, id, charge_id, merchant_id, currency, amount, refunded_after,
                            amount_given, reason, created_at)
VALUES (%1::text, %2::uuid, %3::uuid, %4::text, %5::text, %6::bigint, %7::bigint,
        %8::boolean, %9::text, %10::timestamptz)
RETURNING 1
"""

_COUNT: Final = """
UPDATE charges SET refunded = %3::bigint
 WHERE owner = %1::text AND id = %2::uuid AND refunded = %4::bigint
RETURNING 1
"""


async def lock_charge(tx: Tx, charge: Charge) -> tuple[int, datetime]:
    """How much of it was refunded, locked until the transaction ends; and when that began."""
    row = await tx.driver.fetchrow(_LOCK, user_owner(charge.user_id), charge.id)
    assert row is not None, "charges are never removed"
    return row[0], row[1]


def insertion(command: RefundCommand, refund: Refund) -> tuple[Part, Part]:
    """The refund, and the charge's total, unless somebody changed that under its lock."""
    owner, charge = command.payer.owner, command.charge
    minor, currency = refund.money
    after = refund.refunded_after_minor
    row = (
        owner, refund.id, charge.id, charge.merchant_id, currency, minor, after,
        refund.amount_given, refund.reason, refund.created_at,
    )  # fmt: skip
    return (
        Part("refunded", _INSERT, row, 1),
        Part("counted", _COUNT, (owner, charge.id, after, after - minor), 1),
    )


async def select_refund(tx: Tx, merchant_id: str, refund_id: UUID) -> Refund:
    """A refund known to exist."""
    chosen = (ChargeRefunds.merchant_id == merchant_id, ChargeRefunds.id == refund_id)
    return _refund((await tx.execute(_refunds().where(*chosen))).one())


async def select_page(tx: Tx, charge: Charge, below_minor: int | None, limit: int) -> list[Refund]:
    """The charge's refunds, newest first: of each, the charge's total after it is greater."""
    owner = user_owner(charge.user_id)
    query = _refunds().where(ChargeRefunds.owner == owner, ChargeRefunds.charge_id == charge.id)
    if below_minor is not None:
        query = query.where(ChargeRefunds.refunded_after < below_minor)
    query = query.order_by(ChargeRefunds.refunded_after.desc()).limit(limit)
    return [_refund(row) for row in await tx.execute(query)]


def _refunds() -> Select[Any]:
    return select(ChargeRefunds.__table__)


def _refund(row: Row[Any]) -> Refund:
    return Refund(
        row.id,
        row.charge_id,
        Money(row.amount, row.currency),
        row.refunded_after,
        row.amount_given,
        row.reason,
        row.created_at,
    )
