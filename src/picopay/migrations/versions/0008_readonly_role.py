"""A role that reads and cannot write: for operators' queries and dashboards."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Neither what keys are digested with, nor idempotency keys, with which an order can be looked up.
_READABLE = (
    *("accounts", "postings", "entries", "users", "charges", "charge_refunds"),
    *("api_key_uses", "alembic_version", "transfers", "products", "stock_moves"),
    *("orders", "order_items", "order_payments", "order_refunds", "order_events"),
    *("outbox_events", "outbox_queue", "outbox_consumed", "worker_duties"),
    *("dead_letters", "dead_letter_audits"),
)
# In parts: not the digest of a key, nor a URL whose query may hold somebody's secret.
_COLUMNS = {
    "api_keys": "id, name, merchant_id, scopes, prefix, created_at, expires_at, revoked_at",
    "fake_payments": "payment_id, order_id, currency, amount, outcome, created_at, settles_at, "
    "refunded_at",
}

# Roles belong to the whole cluster: another database of it may have made this one already, or an
# administrator, for an owner who may not make any.
_ROLE = """
DO $$ BEGIN
  IF to_regrole('picopay_readonly') IS NULL THEN CREATE ROLE picopay_readonly NOLOGIN; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""


def upgrade() -> None:
    op.execute(_ROLE)
    op.execute(f"GRANT SELECT ON {', '.join(_READABLE)} TO picopay_readonly")
    for table, columns in _COLUMNS.items():
        op.execute(f"GRANT SELECT ({columns}) ON {table} TO picopay_readonly")


def downgrade() -> None:
    """The role stays, as `picopay_app` does: it belongs to the cluster."""
    relations = ", ".join((*_READABLE, *_COLUMNS))
    op.execute(f"REVOKE ALL ON {relations} FROM picopay_readonly")
