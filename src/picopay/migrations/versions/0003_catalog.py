"""Products and the moves of their stock."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A product's id and beginning are fixed; what happened to its stock is history.
_GRANTS = {
    "products": "SELECT, INSERT, UPDATE"
    " (name, currency, price, stock, version, is_active, archived_at, updated_at)",
    "stock_moves": "SELECT, INSERT",
}

# Trigrams say nothing of searches for one or two characters; these parts do, and exactly. The cost
# is what it was measured to be, so that the planner knows when not to call it for each row.
_SHORT_PARTS = """
CREATE FUNCTION short_parts(name text) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 1000
RETURN (SELECT string_to_array(lowered, NULL)
            || ARRAY(SELECT substr(lowered, start, 2)
                       FROM generate_series(1, char_length(lowered) - 1) AS start)
          FROM (SELECT lower(name COLLATE "default") AS lowered OFFSET 0) AS once)
"""

_LISTED = sa.text("archived_at IS NULL")


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    op.execute(_SHORT_PARTS)
    _products()
    _indexes()
    _stock_moves()
    # A search looks through all that is pending, row by row: let that be little.
    for index in ("products_search_idx", "products_short_search_idx"):
        op.execute(f"ALTER INDEX {index} SET (gin_pending_list_limit = 1024)")
    # Orders write a new version of a product's row each time: beside the old one, if it has room.
    op.execute("ALTER TABLE products SET (fillfactor = 80)")
    for relation, privileges in _GRANTS.items():
        op.execute(f"GRANT {privileges} ON {relation} TO picopay_app")


def downgrade() -> None:
    """The extension stays: somebody else may be using it."""
    for table in reversed(_GRANTS):
        op.drop_table(table)
    op.execute("DROP FUNCTION short_parts(text)")


def _at(
    name: str, default: sa.ColumnElement[Any] | None = None, *, nullable: bool = False
) -> sa.Column[Any]:
    return sa.Column(name, TIMESTAMP(timezone=True), server_default=default, nullable=nullable)


def _name(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Text(collation="C"), nullable=False)


def _uuid(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Uuid(), nullable=nullable)


def _int(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Integer(), nullable=False, autoincrement=False)


def _products() -> None:
    op.create_table(
        "products",
        _uuid("id"),
        _name("name"),
        _name("currency"),
        sa.Column("price", sa.BigInteger(), nullable=False),
        _int("stock"),
        _int("version"),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        _at("archived_at", nullable=True),
        _at("created_at", sa.func.now()),
        _at("updated_at", sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="products_pkey"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", "name_length"),
        sa.CheckConstraint("price BETWEEN 0 AND 999999999999", "price_in_range"),
        sa.CheckConstraint("stock >= 0", "stock_not_negative"),
        sa.CheckConstraint("version >= 0", "version_not_negative"),
    )


def _indexes() -> None:
    for key in ("created_at", "name", "price"):
        columns = ["is_active", key, "id"]
        op.create_index(f"products_{key}_idx", "products", columns, postgresql_where=_LISTED)
    op.create_index(
        "products_search_idx",
        "products",
        [sa.literal_column('lower(name COLLATE "default")', sa.Text()).label("lower")],
        postgresql_ops={"lower": "gin_trgm_ops"},
        postgresql_using="gin",
        postgresql_where=_LISTED,
    )
    op.create_index(
        "products_short_search_idx",
        "products",
        [sa.text("short_parts(name)")],
        postgresql_using="gin",
        postgresql_where=_LISTED,
    )


def _stock_moves() -> None:
    op.create_table(
        "stock_moves",
        _uuid("product_id"),
        _int("version"),
        _uuid("id"),
        _int("delta"),
        _int("stock_after"),
        _name("reason"),
        _uuid("order_id", nullable=True),
        _at("created_at", sa.func.now()),
        sa.PrimaryKeyConstraint("product_id", "version", name="stock_moves_pkey"),
        sa.CheckConstraint("version > 0", "version_positive"),
        sa.CheckConstraint("delta <> 0", "delta_not_zero"),
        sa.CheckConstraint("stock_after >= 0", "stock_not_negative"),
        sa.CheckConstraint("stock_after::bigint - delta >= 0", "stock_before_not_negative"),
        sa.CheckConstraint(
            "reason IN ('opened', 'adjusted', 'reserved', 'returned')", "reason_known"
        ),
        sa.CheckConstraint(
            "(reason IN ('reserved', 'returned')) = (order_id IS NOT NULL)", "orders_have_an_id"
        ),
        sa.CheckConstraint(
            "reason = 'adjusted' OR (reason = 'reserved') = (delta < 0)", "direction_fits_reason"
        ),
    )
    op.create_index(
        "stock_moves_order_key",
        "stock_moves",
        ["product_id", "order_id", "reason"],
        unique=True,
        postgresql_where=sa.text("order_id IS NOT NULL"),
    )
