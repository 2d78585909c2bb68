"""The baseline's two tables, and its engine: what a careful textbook would write."""

import os
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, create_engine, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

THREADS = 40  # FastAPI runs `def` endpoints in as many threads; each gets a connection


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    __table_args__ = (CheckConstraint("balance >= 0", "never_overdrawn"),)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    balance: Mapped[int] = mapped_column(BigInteger)  # cents


class Transaction(Base):
    __tablename__ = "transactions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    amount: Mapped[int] = mapped_column(BigInteger)  # cents
    currency: Mapped[str]
    status: Mapped[str]
    idempotency_key: Mapped[UUID | None] = mapped_column(unique=True)
    new_balance: Mapped[int] = mapped_column(BigInteger)  # a replay answers the original's
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


engine = create_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://"),
    pool_size=THREADS,
    max_overflow=0,
)
# The answer is built from the row after the commit, without asking for it again.
SessionLocal = sessionmaker(engine, expire_on_commit=False)
