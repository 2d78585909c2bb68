"""The SQL of fake payments."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select, update
from sqlalchemy.dialects.postgresql import insert

from picopay.fake_payments.model import Knobs, Outcome, Payment, PaymentCommand
from picopay.fake_payments.tables import FakePayments
from picopay.infra.tx import Tx
from picopay.kernel.money import Money


async def insert_absent(tx: Tx, command: PaymentCommand, outcome: Outcome) -> bool:
    """Whether the payment is new. A concurrent one of the same id is waited for."""
    knobs = command.knobs._asdict()
    statement = insert(FakePayments).values(
        payment_id=command.id,
        order_id=command.order_id,
        currency=command.money.currency,
        amount=command.money.minor,
        callback_url=command.callback_url,
        forced=knobs.pop("outcome"),
        outcome=outcome,
        settles_at=func.now() + timedelta(seconds=command.knobs.delay_seconds),
        **knobs,
    )
    made = statement.on_conflict_do_nothing().returning(FakePayments.payment_id)
    return (await tx.execute(made)).scalar_one_or_none() is not None


async def select_payment(tx: Tx, payment_id: UUID, *, lock: bool = False) -> Payment | None:
    """Locked if so."""
    is_settled = (func.clock_timestamp() >= FakePayments.settles_at).label("is_settled")
    query = select(FakePayments.__table__, is_settled).where(FakePayments.payment_id == payment_id)
    row = (await tx.execute(query.with_for_update() if lock else query)).one_or_none()
    return _payment(row) if row else None


async def mark_refunded(tx: Tx, payment_id: UUID) -> None:
    """Not before it was settled, even if the clock has been put back since."""
    refunded_at = func.greatest(func.clock_timestamp(), FakePayments.settles_at)
    statement = (
        update(FakePayments)
        .where(FakePayments.payment_id == payment_id, FakePayments.refunded_at.is_(None))
        .values(refunded_at=refunded_at)
    )
    marked = await tx.execute(statement)
    assert marked.rowcount == 1, "it was locked, and not refunded"


def _payment(row: Row[Any]) -> Payment:
    return Payment(
        row.payment_id,
        row.order_id,
        Money(row.amount, row.currency),
        row.callback_url,
        Outcome(row.outcome),
        Knobs(
            outcome=None if row.forced is None else Outcome(row.forced),
            delay_seconds=row.delay_seconds,
            duplicates=row.duplicates,
            reorder_seconds=row.reorder_seconds,
            silence_seconds=row.silence_seconds,
            lose=row.lose,
            conflicting=row.conflicting,
        ),
        row.created_at,
        row.settles_at,
        row.refunded_at,
        row.is_settled,
    )
