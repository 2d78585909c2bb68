"""Orders with their items, payments, refunds and timelines."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# What was ordered, and what has happened, is history.
_GRANTS = {
    "orders": "SELECT, INSERT, UPDATE (status, payment_id, updated_at)",
    "order_items": "SELECT, INSERT",
    "order_payments": "SELECT, INSERT, UPDATE (status, posting_id)",
    "order_refunds": "SELECT, INSERT, UPDATE (status, posting_id)",
    "order_events": "SELECT, INSERT",
}
_AMOUNT_MAX = 10**15


def upgrade() -> None:
    _orders()
    _items()
    _money()
    op.create_table(
        "order_events",
        _order_id(),
        sa.Column("seq", sa.SmallInteger(), nullable=False, autoincrement=False),
        _name("happened"),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column(
            "at",
            TIMESTAMP(timezone=True),
            nullable=False,
            server_default=sa.func.clock_timestamp(),
        ),
        sa.PrimaryKeyConstraint("order_id", "seq", name="order_events_pkey"),
        _of_order("order_events"),
    )
    for relation, privileges in _GRANTS.items():
        op.execute(f"GRANT {privileges} ON {relation} TO picopay_app")


def downgrade() -> None:
    for table in reversed(_GRANTS):
        op.drop_table(table)


def _name(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Text(collation="C"), nullable=nullable)


def _order_id() -> sa.Column[object]:
    return sa.Column("order_id", sa.Uuid(), nullable=False)


def _big(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _of_order(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=f"{table}_order_id_fkey")


def _orders() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.Uuid(), nullable=False),
        _name("user_email"),
        _name("status"),
        _name("provider"),
        _name("currency"),
        _big("items_total"),
        _big("user_id", nullable=True),
        _name("payment_id", nullable=True),
        sa.Column("created_at", TIMESTAMP(timezone=True), nullable=False),
        sa.Column("updated_at", TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="orders_pkey"),
        sa.CheckConstraint(
            "status IN ('reserved', 'payment_pending', 'paid', 'canceled')", "status_known"
        ),
        sa.CheckConstraint("provider IN ('fake', 'manual', 'wallet')", "provider_known"),
        sa.CheckConstraint(f"items_total BETWEEN 0 AND {_AMOUNT_MAX}", "total_in_range"),
        sa.CheckConstraint("status <> 'paid' OR payment_id IS NOT NULL", "paid_by_a_payment"),
        sa.CheckConstraint("(provider = 'wallet') = (user_id IS NOT NULL)", "wallet_has_a_user"),
    )
    op.create_index("orders_user_email_idx", "orders", ["user_email", "id"])
    op.create_index("orders_status_idx", "orders", ["status", "id"])


def _items() -> None:
    op.create_table(
        "order_items",
        _order_id(),
        sa.Column("place", sa.SmallInteger(), nullable=False, autoincrement=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        _big("price"),
        sa.PrimaryKeyConstraint("order_id", "place", name="order_items_pkey"),
        sa.CheckConstraint("quantity > 0", "quantity_positive"),
        sa.CheckConstraint(f"price BETWEEN 0 AND {_AMOUNT_MAX}", "price_in_range"),
        _of_order("order_items"),
    )


def _money() -> None:
    for table, statuses in (
        ("order_payments", "'pending', 'succeeded', 'failed'"),
        ("order_refunds", "'requested', 'succeeded', 'failed'"),
    ):
        op.create_table(
            table,
            _order_id(),
            _name("payment_id"),
            _name("status"),
            sa.Column("posting_id", sa.Uuid(), nullable=True),
            sa.PrimaryKeyConstraint("order_id", "payment_id", name=f"{table}_pkey"),
            sa.CheckConstraint(f"status IN ({statuses})", "status_known"),
            sa.CheckConstraint(
                "status = 'succeeded' OR posting_id IS NULL", "only_money_is_posted"
            ),
            _of_order(table),
        )
