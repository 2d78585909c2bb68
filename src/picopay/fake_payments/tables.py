"""Fake payments: a row each, made before it is answered; only a refund changes it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Double, SmallInteger, Text, func
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from picopay.infra.models import Base, Name
from picopay.infra.settings import (
    FAKE_PAYMENT_DELAY_SECONDS_MAX,
    FAKE_PAYMENT_DUPLICATES_MAX,
    FAKE_PAYMENT_REORDER_SECONDS_MAX,
    FAKE_PAYMENT_SILENCE_SECONDS_MAX,
)
from picopay.kernel.money import AMOUNT_MINOR_MAX


class FakePayments(Base):
    __tablename__ = "fake_payments"
    __table_args__ = (
        CheckConstraint(f"amount BETWEEN 1 AND {AMOUNT_MINOR_MAX}", "amount_in_range"),
        CheckConstraint("outcome IN ('success', 'failed')", "outcome_known"),
        CheckConstraint("forced IS NULL OR forced = outcome", "forced_is_outcome"),
        CheckConstraint(
            f"delay_seconds BETWEEN 0 AND {FAKE_PAYMENT_DELAY_SECONDS_MAX}", "delay_in_range"
        ),
        CheckConstraint(
            f"duplicates BETWEEN 1 AND {FAKE_PAYMENT_DUPLICATES_MAX}", "duplicates_in_range"
        ),
        CheckConstraint(
            f"reorder_seconds BETWEEN 0 AND {FAKE_PAYMENT_REORDER_SECONDS_MAX}", "reorder_in_range"
        ),
        CheckConstraint(
            f"silence_seconds BETWEEN 0 AND {FAKE_PAYMENT_SILENCE_SECONDS_MAX}", "silence_in_range"
        ),
        CheckConstraint("settles_at >= created_at", "settles_after_creation"),
        CheckConstraint("refunded_at IS NULL OR outcome = 'success'", "only_success_is_refunded"),
        CheckConstraint("refunded_at >= settles_at", "only_settled_is_refunded"),
        {"info": {"distributed_by": "payment_id"}},
    )

    payment_id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[str] = mapped_column(Name)
    currency: Mapped[str] = mapped_column(Name)
    amount: Mapped[int] = mapped_column(BigInteger)
    callback_url: Mapped[str | None] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Name)
    forced: Mapped[str | None] = mapped_column(Name)
    delay_seconds: Mapped[float] = mapped_column(Double)
    duplicates: Mapped[int] = mapped_column(SmallInteger)
    reorder_seconds: Mapped[float] = mapped_column(Double)
    silence_seconds: Mapped[float] = mapped_column(Double)
    lose: Mapped[bool] = mapped_column()
    conflicting: Mapped[bool] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )
    settles_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))
    refunded_at: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True))
