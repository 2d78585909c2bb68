"""Stock holds whatever comes back: an administrator's bound is no longer the column's.

The table is written anew. Its history follows in a transaction of its own, since it is long, and
nobody could see a product meanwhile.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE products ALTER stock TYPE bigint")


def downgrade() -> None:
    """Refused by PostgreSQL while more has come back than the column of before can hold."""
    op.execute("ALTER TABLE products ALTER stock TYPE integer")
