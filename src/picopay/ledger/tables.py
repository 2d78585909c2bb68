"""The ledger's tables. Every key begins with, or holds, the owner: the distribution column."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Index, func
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from picopay.infra.models import Base, Name
from picopay.kernel.money import AMOUNT_MINOR_MAX


class Accounts(Base):
    """Changed only together with the postings that explain the change."""

    __tablename__ = "accounts"
    __table_args__ = (
        CheckConstraint("may_overdraw OR credits >= debits", "never_overdrawn"),
        CheckConstraint("debits >= 0 AND credits >= 0", "totals_not_negative"),
        CheckConstraint("version >= 0", "version_not_negative"),
        CheckConstraint("version > 0 OR (debits = 0 AND credits = 0)", "moved_only_by_postings"),
        {"info": {"distributed_by": "owner"}},
    )

    owner: Mapped[str] = mapped_column(Name, primary_key=True)
    currency: Mapped[str] = mapped_column(Name, primary_key=True)
    may_overdraw: Mapped[bool] = mapped_column(Boolean)
    debits: Mapped[int] = mapped_column(BigInteger, server_default="0")
    credits: Mapped[int] = mapped_column(BigInteger, server_default="0")
    version: Mapped[int] = mapped_column(BigInteger, server_default="0")
    created_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )


class Postings(Base):
    """Immutable: the app's role may insert and read, never change or remove."""

    __tablename__ = "postings"
    __table_args__ = (
        CheckConstraint(f"amount BETWEEN 1 AND {AMOUNT_MINOR_MAX}", "amount_in_range"),
        CheckConstraint("debit_owner <> credit_owner", "two_accounts"),
        CheckConstraint("debit_version > 0 AND credit_version > 0", "versions_positive"),
        # Serves statements, and makes two postings of one version impossible.
        Index(
            "postings_debit_version_key", "debit_owner", "currency", "debit_version", unique=True
        ),
        # Not unique: on a distributed engine a unique key must hold the distribution column.
        # `ledger check` proves what it would.
        Index("postings_credit_version_idx", "credit_owner", "currency", "credit_version"),
        {"info": {"distributed_by": "debit_owner"}},
    )

    # First in the key: ids come in order of time, so each new one is put at the index's end.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    debit_owner: Mapped[str] = mapped_column(Name, primary_key=True)
    credit_owner: Mapped[str] = mapped_column(Name)
    currency: Mapped[str] = mapped_column(Name)
    amount: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(Name)
    debit_balance: Mapped[int] = mapped_column(BigInteger)
    debit_version: Mapped[int] = mapped_column(BigInteger)
    credit_balance: Mapped[int] = mapped_column(BigInteger)
    credit_version: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )
