"""History of stock as wide as stock, in one pass: orders wait while it is written anew."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
ALTER TABLE stock_moves
  ALTER delta TYPE bigint,
  ALTER stock_after TYPE bigint,
  DROP CONSTRAINT stock_moves_stock_before_not_negative,
  ADD CONSTRAINT stock_moves_stock_before_not_negative CHECK (stock_after - delta >= 0),
  ADD CONSTRAINT stock_moves_set_in_range
    CHECK (NOT reason IN ('opened', 'adjusted') OR stock_after <= 2147483647)
""")


def downgrade() -> None:
    """Refused by PostgreSQL while more has come back than the columns of before can hold."""
    op.execute("""
ALTER TABLE stock_moves
  DROP CONSTRAINT stock_moves_set_in_range,
  DROP CONSTRAINT stock_moves_stock_before_not_negative,
  ALTER delta TYPE integer,
  ALTER stock_after TYPE integer,
  ADD CONSTRAINT stock_moves_stock_before_not_negative CHECK (stock_after::bigint - delta >= 0)
""")
