"""API keys. On a distributed engine these are reference tables: read often, written rarely."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, Text, func
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from picopay.infra.models import Base


class Installation(Base):
    """One row: what makes this database's digests its own."""

    __tablename__ = "installation"
    __table_args__ = (CheckConstraint("id = 1", "single_row"), {"info": {"reference": True}})

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    pepper: Mapped[bytes] = mapped_column(LargeBinary)


class ApiKeys(Base):
    __tablename__ = "api_keys"
    __table_args__ = (
        Index("api_keys_digest_key", "digest", unique=True),
        {"info": {"reference": True}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    merchant_id: Mapped[str] = mapped_column(Text)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    prefix: Mapped[str] = mapped_column(Text)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )
    expires_at: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True))


class ApiKeyUses(Base):
    """Apart from the keys, which are reference data: written at most once a minute."""

    __tablename__ = "api_key_uses"
    __table_args__ = ({"info": {"distributed_by": "key_id"}},)

    key_id: Mapped[UUID] = mapped_column(ForeignKey(ApiKeys.id), primary_key=True)
    last_used_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))
