"""Refunds of charges, and how much of each charge was refunded."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Refunds are history; of a charge nothing may change but what was refunded of it.
_GRANTS = {"charges": "UPDATE (refunded)", "charge_refunds": "SELECT, INSERT"}


def upgrade() -> None:
    op.add_column("charges", _bigint("refunded", "0"))
    op.create_check_constraint("refunded_in_range", "charges", "refunded BETWEEN 0 AND amount")
    op.create_table(
        "charge_refunds",
        _name("owner"),
        _uuid("id"),
        _uuid("charge_id"),
        _name("merchant_id"),
        _name("currency"),
        _bigint("amount"),
        _bigint("refunded_after"),
        sa.Column("amount_given", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", "id", name="charge_refunds_pkey"),
        sa.CheckConstraint("amount BETWEEN 1 AND 1000000000000000", "amount_in_range"),
        sa.CheckConstraint("refunded_after >= amount", "counts_itself"),
    )
    op.create_index(
        "charge_refunds_total_key",
        "charge_refunds",
        ["owner", "charge_id", "refunded_after"],
        unique=True,
    )
    op.create_index("charge_refunds_merchant_id_idx", "charge_refunds", ["merchant_id", "id"])
    for relation, privileges in _GRANTS.items():
        op.execute(f"GRANT {privileges} ON {relation} TO picopay_app")


def downgrade() -> None:
    op.drop_table("charge_refunds")
    op.drop_column("charges", "refunded")  # and with it its constraint and its grant


def _name(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Text(collation="C"), nullable=False)


def _uuid(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Uuid(), nullable=False)


def _bigint(name: str, default: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default=default)
