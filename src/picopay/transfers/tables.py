"""Transfers: a row for each transaction id, made before its webhook is acknowledged."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, func, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from picopay.infra.models import Base, Name
from picopay.kernel.money import AMOUNT_MINOR_MAX


class Transfers(Base):
    __tablename__ = "transfers"
    __table_args__ = (
        CheckConstraint(f"amount BETWEEN 1 AND {AMOUNT_MINOR_MAX}", "amount_in_range"),
        CheckConstraint("source <> destination", "two_accounts"),
        CheckConstraint("status IN ('PROCESSING', 'PROCESSED', 'FAILED')", "status_known"),
        CheckConstraint("(status = 'PROCESSED') = (processed_at IS NOT NULL)", "processed_at_when"),
        Index("transfers_id_idx", "id"),
        Index("transfers_source_idx", "source", "id"),
        Index("transfers_destination_idx", "destination", "id"),
        Index("transfers_open_idx", "status", "id", postgresql_where=text("status <> 'PROCESSED'")),
        {"info": {"distributed_by": "transaction_id"}},
    )

    transaction_id: Mapped[str] = mapped_column(Name, primary_key=True)
    id: Mapped[UUID] = mapped_column()
    source: Mapped[str] = mapped_column(Name)
    destination: Mapped[str] = mapped_column(Name)
    currency: Mapped[str] = mapped_column(Name)
    amount: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(Name, server_default="PROCESSING")
    created_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.clock_timestamp()
    )
    processed_at: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True))
