"""The fake payment provider's payments."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fake_payments",
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        _name("order_id"),
        _name("currency"),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("callback_url", sa.Text(), nullable=True),
        _name("outcome"),
        _name("forced", nullable=True),
        _seconds("delay_seconds"),
        sa.Column("duplicates", sa.SmallInteger(), nullable=False),
        _seconds("reorder_seconds"),
        _seconds("silence_seconds"),
        sa.Column("lose", sa.Boolean(), nullable=False),
        sa.Column("conflicting", sa.Boolean(), nullable=False),
        sa.Column(
            "created_at", TIMESTAMP(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("settles_at", TIMESTAMP(timezone=True), nullable=False),
        sa.Column("refunded_at", TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("payment_id", name="fake_payments_pkey"),
        sa.CheckConstraint("amount BETWEEN 1 AND 1000000000000000", "amount_in_range"),
        sa.CheckConstraint("outcome IN ('success', 'failed')", "outcome_known"),
        sa.CheckConstraint("forced IS NULL OR forced = outcome", "forced_is_outcome"),
        sa.CheckConstraint("delay_seconds BETWEEN 0 AND 86400", "delay_in_range"),
        sa.CheckConstraint("duplicates BETWEEN 1 AND 20", "duplicates_in_range"),
        sa.CheckConstraint("reorder_seconds BETWEEN 0 AND 3600", "reorder_in_range"),
        sa.CheckConstraint("silence_seconds BETWEEN 0 AND 60", "silence_in_range"),
        sa.CheckConstraint("settles_at >= created_at", "settles_after_creation"),
        sa.CheckConstraint(
            "refunded_at IS NULL OR outcome = 'success'", "only_success_is_refunded"
        ),
        sa.CheckConstraint("refunded_at >= settles_at", "only_settled_is_refunded"),
    )
    # What was decided is history: the app may add to it, and mark a refund.
    op.execute("GRANT SELECT, INSERT, UPDATE (refunded_at) ON fake_payments TO picopay_app")


def downgrade() -> None:
    op.drop_table("fake_payments")


def _name(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Text(collation="C"), nullable=nullable)


def _seconds(name: str) -> sa.Column[float]:
    kind: sa.Double[float] = sa.Double()
    return sa.Column(name, kind, nullable=False)
