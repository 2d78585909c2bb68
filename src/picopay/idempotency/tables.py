"""Idempotency keys: which resource each has made. Rows are never changed, and never expire."""

from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from picopay.infra.models import Base, Name


class IdempotencyKeys(Base):
    __tablename__ = "idempotency_keys"
    __table_args__ = ({"info": {"distributed_by": "key"}},)

    key: Mapped[str] = mapped_column(Name, primary_key=True)
    merchant_id: Mapped[str] = mapped_column(Name, primary_key=True)
    operation: Mapped[str] = mapped_column(Name, primary_key=True)
    resource_id: Mapped[UUID] = mapped_column()
