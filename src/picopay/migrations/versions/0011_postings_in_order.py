"""Postings are found by id, then payer: ids come in order of time, so each is put at the end.

With the payer first, each went to a page of its own: that costs a charge the more, the more there
are. The index is built beforehand, while charges go on; its taking over is a moment.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# An earlier run may have left the index half built.
BEFOREHAND = (
    "DROP INDEX CONCURRENTLY IF EXISTS postings_id_debit_owner_key",
    "CREATE UNIQUE INDEX CONCURRENTLY postings_id_debit_owner_key ON postings (id, debit_owner)",
)


def upgrade() -> None:
    op.execute("""
ALTER TABLE postings
  DROP CONSTRAINT postings_pkey,
  ADD CONSTRAINT postings_pkey PRIMARY KEY USING INDEX postings_id_debit_owner_key
""")


def downgrade() -> None:
    op.execute("""
ALTER TABLE postings
  DROP CONSTRAINT postings_pkey,
  ADD CONSTRAINT postings_pkey PRIMARY KEY (debit_owner, id)
""")
