"""Products, and the append-only history of their stock.

No foreign key leads from a move to its product: the app can delete neither, it would lock and
write the product's row once more for each batch of orders, and the check proves the same.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, Text, func, literal_column, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from picopay.catalog.model import NAME_LENGTH_MAX, PRICE_MINOR_MAX, STOCK_MAX
from picopay.infra.models import Base, Name

_LISTED = text("archived_at IS NULL")
_OF_ORDERS = "reason IN ('reserved', 'returned')"
_SET = "reason IN ('opened', 'adjusted')"


class Products(Base):
    """What changes with every order, its stock, is in no index: such an update stays in its page.

    Each sort order is an index that ends with the id, read in either direction. Search has two:
    trigrams find three characters or more, `short_parts` is every part of one or two.
    """

    __tablename__ = "products"
    __table_args__ = (
        CheckConstraint(f"char_length(name) BETWEEN 1 AND {NAME_LENGTH_MAX}", "name_length"),
        CheckConstraint(f"price BETWEEN 0 AND {PRICE_MINOR_MAX}", "price_in_range"),
        CheckConstraint("stock >= 0", "stock_not_negative"),
        CheckConstraint("version >= 0", "version_not_negative"),
        Index("products_created_at_idx", "is_active", "created_at", "id", postgresql_where=_LISTED),
        Index("products_name_idx", "is_active", "name", "id", postgresql_where=_LISTED),
        Index("products_price_idx", "is_active", "price", "id", postgresql_where=_LISTED),
        Index(
            "products_search_idx",
            literal_column('lower(name COLLATE "default")', Text()).label("lower"),
            postgresql_ops={"lower": "gin_trgm_ops"},
            postgresql_using="gin",
            postgresql_where=_LISTED,
        ),
        Index(
            "products_short_search_idx",
            text("short_parts(name)"),
            postgresql_using="gin",
            postgresql_where=_LISTED,
        ),
        {"info": {"distributed_by": "id"}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Name)
    currency: Mapped[str] = mapped_column(Name)
    price: Mapped[int] = mapped_column(BigInteger)
    stock: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(Integer)
    is_active: Mapped[bool] = mapped_column()
    archived_at: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True))
    created_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )
    updated_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )


class StockMoves(Base):
    """Immutable: the app's role may neither change nor delete a row."""

    __tablename__ = "stock_moves"
    __table_args__ = (
        CheckConstraint("version > 0", "version_positive"),
        CheckConstraint("delta <> 0", "delta_not_zero"),
        CheckConstraint("stock_after >= 0", "stock_not_negative"),
        CheckConstraint("stock_after - delta >= 0", "stock_before_not_negative"),
        # What comes back always fits: only what is set has a bound.
        CheckConstraint(f"NOT {_SET} OR stock_after <= {STOCK_MAX}", "set_in_range"),
        CheckConstraint("reason IN ('opened', 'adjusted', 'reserved', 'returned')", "reason_known"),
        CheckConstraint(f"({_OF_ORDERS}) = (order_id IS NOT NULL)", "orders_have_an_id"),
        CheckConstraint(
            "reason = 'adjusted' OR (reason = 'reserved') = (delta < 0)", "direction_fits_reason"
        ),
        # An order takes and returns stock of a product once.
        Index(
            "stock_moves_order_key",
            "product_id",
            "order_id",
            "reason",
            unique=True,
            postgresql_where=text("order_id IS NOT NULL"),
        ),
        {"info": {"distributed_by": "product_id"}},
    )

    product_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    id: Mapped[UUID] = mapped_column()
    delta: Mapped[int] = mapped_column(BigInteger)
    stock_after: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Name)
    order_id: Mapped[UUID | None] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )
