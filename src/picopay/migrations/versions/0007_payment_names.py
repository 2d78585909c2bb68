"""The name of a payment leads to the order that the provider made it for: of those made before."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
INSERT INTO idempotency_keys (key, merchant_id, operation, resource_id)
SELECT detail, 'shop', 'payment', order_id
  FROM order_events
 WHERE happened = 'payment.created'
 ORDER BY order_id
ON CONFLICT DO NOTHING
""")


def downgrade() -> None:
    op.execute("DELETE FROM idempotency_keys WHERE operation = 'payment'")
