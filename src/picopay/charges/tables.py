"""Charges: one row for each that was made, beside the posting of the same id."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, func
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from picopay.infra.models import Base, Name


class Charges(Base):
    __tablename__ = "charges"
    __table_args__ = (
        CheckConstraint("amount > 0", "amount_positive"),
        CheckConstraint("balance_after >= 0", "never_overdrawn"),
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
