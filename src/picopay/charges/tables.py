"""Charges and refunds: a row for each that was made, beside the posting of the same id."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Index, Text, func
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from picopay.infra.models import Base, Name
from picopay.kernel.money import AMOUNT_MINOR_MAX


class Charges(Base):
    """Immutable, but for how much of each was refunded."""

    __tablename__ = "charges"
    __table_args__ = (
        CheckConstraint("amount > 0", "amount_positive"),
        CheckConstraint("balance_after >= 0", "never_overdrawn"),
        CheckConstraint("refunded BETWEEN 0 AND amount", "refunded_in_range"),
        Index("charges_merchant_id_idx", "merchant_id", "id"),
        {"info": {"distributed_by": "owner"}},
    )

    owner: Mapped[str] = mapped_column(Name, primary_key=True)  # the payer's
    id: Mapped[UUID] = mapped_column(primary_key=True)
    merchant_id: Mapped[str] = mapped_column(Name)
    currency: Mapped[str] = mapped_column(Name)
    amount: Mapped[int] = mapped_column(BigInteger)
    balance_after: Mapped[int] = mapped_column(BigInteger)
    idempotency_key: Mapped[str | None] = mapped_column(Name)
    created_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )
    refunded: Mapped[int] = mapped_column(BigInteger, server_default="0")


class ChargeRefunds(Base):
    """Immutable: the app's role may insert and read, never change or remove."""

    __tablename__ = "charge_refunds"
    __table_args__ = (
        CheckConstraint(f"amount BETWEEN 1 AND {AMOUNT_MINOR_MAX}", "amount_in_range"),
        CheckConstraint("refunded_after >= amount", "counts_itself"),
        # Serves lists, and makes two refunds that start from one total impossible.
        Index("charge_refunds_total_key", "owner", "charge_id", "refunded_after", unique=True),
        Index("charge_refunds_merchant_id_idx", "merchant_id", "id"),
        {"info": {"distributed_by": "owner"}},
    )

    owner: Mapped[str] = mapped_column(Name, primary_key=True)  # the payer's, as the charge's
    id: Mapped[UUID] = mapped_column(primary_key=True)
    charge_id: Mapped[UUID] = mapped_column()
    merchant_id: Mapped[str] = mapped_column(Name)
    currency: Mapped[str] = mapped_column(Name)
    amount: Mapped[int] = mapped_column(BigInteger)
    refunded_after: Mapped[int] = mapped_column(BigInteger)
    amount_given: Mapped[bool] = mapped_column(Boolean)
    reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))
