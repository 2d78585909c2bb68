"""Orders, what belongs to each, and what has happened to it. All of one order lies together."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from picopay.infra.models import Base, Name
from picopay.kernel.money import AMOUNT_MINOR_MAX


class Orders(Base):
    __tablename__ = "orders"
    __table_args__ = (
        CheckConstraint(
            "status IN ('reserved', 'payment_pending', 'paid', 'canceled')", "status_known"
        ),
        CheckConstraint("provider IN ('fake', 'manual', 'wallet')", "provider_known"),
        CheckConstraint(f"items_total BETWEEN 0 AND {AMOUNT_MINOR_MAX}", "total_in_range"),
        CheckConstraint("status <> 'paid' OR payment_id IS NOT NULL", "paid_by_a_payment"),
        CheckConstraint("(provider = 'wallet') = (user_id IS NOT NULL)", "wallet_has_a_user"),
        Index("orders_user_email_idx", "user_email", "id"),
        Index("orders_status_idx", "status", "id"),
        {"info": {"distributed_by": "id"}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_email: Mapped[str] = mapped_column(Name)
    status: Mapped[str] = mapped_column(Name)
    provider: Mapped[str] = mapped_column(Name)
    currency: Mapped[str] = mapped_column(Name)
    items_total: Mapped[int] = mapped_column(BigInteger)
    user_id: Mapped[int | None] = mapped_column(BigInteger)
    payment_id: Mapped[str | None] = mapped_column(Name)
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))


class OrderItems(Base):
    """Never changed: what was ordered, at the price that held then."""

    __tablename__ = "order_items"
    __table_args__ = (
        CheckConstraint("quantity > 0", "quantity_positive"),
        CheckConstraint(f"price BETWEEN 0 AND {AMOUNT_MINOR_MAX}", "price_in_range"),
        {"info": {"distributed_by": "order_id"}},
    )

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    place: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    id: Mapped[UUID] = mapped_column()
    product_id: Mapped[UUID] = mapped_column()
    quantity: Mapped[int] = mapped_column(Integer)
    price: Mapped[int] = mapped_column(BigInteger)


class OrderPayments(Base):
    """Each payment that a provider has named, at most one of which pays the order."""

    __tablename__ = "order_payments"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'succeeded', 'failed')", "status_known"),
        CheckConstraint("status = 'succeeded' OR posting_id IS NULL", "only_money_is_posted"),
        {"info": {"distributed_by": "order_id"}},
    )

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    payment_id: Mapped[str] = mapped_column(Name, primary_key=True)
    status: Mapped[str] = mapped_column(Name)
    posting_id: Mapped[UUID | None] = mapped_column()


class OrderRefunds(Base):
    """Money that came and cannot pay the order: asked for once, for each payment."""

    __tablename__ = "order_refunds"
    __table_args__ = (
        CheckConstraint("status IN ('requested', 'succeeded', 'failed')", "status_known"),
        CheckConstraint("status = 'succeeded' OR posting_id IS NULL", "only_money_is_posted"),
        {"info": {"distributed_by": "order_id"}},
    )

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    payment_id: Mapped[str] = mapped_column(Name, primary_key=True)
    status: Mapped[str] = mapped_column(Name)
    posting_id: Mapped[UUID | None] = mapped_column()


class OrderEvents(Base):
    """The timeline: the app may only add to it."""

    __tablename__ = "order_events"
    __table_args__ = ({"info": {"distributed_by": "order_id"}},)

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    happened: Mapped[str] = mapped_column(Name)
    detail: Mapped[str | None] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.clock_timestamp()
    )
