"""Users. Their money stands in the ledger, under the owner `user:<id>`."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, func
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from picopay.infra.models import Base


class Users(Base):
    __tablename__ = "users"
    __table_args__ = (CheckConstraint("id > 0", "id_positive"), {"info": {"distributed_by": "id"}})

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    created_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )
