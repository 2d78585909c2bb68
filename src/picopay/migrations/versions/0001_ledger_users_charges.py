"""Ledger, users, charges, idempotency keys and API keys; and the role the app works as."""

import secrets

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# What the app may do, and nothing else: history cannot be rewritten by it.
_GRANTS = {
    "accounts": "SELECT, INSERT (owner, currency, may_overdraw), UPDATE (debits, credits, version)",
    "postings": "SELECT, INSERT",
    "entries": "SELECT",
    "users": "SELECT, INSERT",
    "charges": "SELECT, INSERT",
    "idempotency_keys": "SELECT, INSERT, DELETE",
    "api_keys": "SELECT, INSERT, UPDATE (expires_at, revoked_at)",
    "api_key_uses": "SELECT, INSERT, UPDATE",
    "installation": "SELECT",
    "alembic_version": "SELECT",
}

_ENTRIES = """
CREATE VIEW entries AS
SELECT debit_owner AS owner, currency, id AS posting_id, kind, credit_owner AS counterparty,
       -amount AS amount, debit_balance AS balance_after, debit_version AS version, created_at
  FROM postings
UNION ALL
SELECT credit_owner, currency, id, kind, debit_owner,
       amount, credit_balance, credit_version, created_at
  FROM postings
"""

# Roles belong to the whole cluster: another database of it may have made this one already, or an
# administrator, for an owner who may not make any.
_ROLE = """
DO $$ BEGIN
  IF to_regrole('picopay_app') IS NULL THEN CREATE ROLE picopay_app NOLOGIN; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""


def upgrade() -> None:
    _ledger()
    _users_and_charges()
    _access()
    op.execute(_ENTRIES)
    op.execute(_ROLE)
    op.execute("GRANT picopay_app TO CURRENT_USER")
    for relation, privileges in _GRANTS.items():
        op.execute(f"GRANT {privileges} ON {relation} TO picopay_app")


def downgrade() -> None:
    op.execute("DROP VIEW entries")
    op.execute("REVOKE ALL ON alembic_version FROM picopay_app")
    for table in (
        "api_key_uses", "api_keys", "installation", "charges", "users", "idempotency_keys",
        "postings", "accounts",
    ):  # fmt: skip
        op.drop_table(table)


def _created_at() -> sa.Column[object]:
    return sa.Column(
        "created_at", TIMESTAMP(timezone=True), server_default=sa.func.now(), nullable=False
    )


def _text(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Text(collation="C"), nullable=nullable)


def _bigint(name: str, default: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default=default)


# Check constraints are named without their table: the naming convention puts it in front.
def _ledger() -> None:
    op.create_table(
        "accounts",
        _text("owner"),
        _text("currency"),
        sa.Column("may_overdraw", sa.Boolean(), nullable=False),
        _bigint("debits", "0"),
        _bigint("credits", "0"),
        _bigint("version", "0"),
        _created_at(),
        sa.PrimaryKeyConstraint("owner", "currency", name="accounts_pkey"),
        sa.CheckConstraint("may_overdraw OR credits >= debits", "never_overdrawn"),
        sa.CheckConstraint("debits >= 0 AND credits >= 0", "totals_not_negative"),
        sa.CheckConstraint("version >= 0", "version_not_negative"),
        sa.CheckConstraint("version > 0 OR (debits = 0 AND credits = 0)", "moved_only_by_postings"),
    )
    op.create_table(
        "postings",
        _text("debit_owner"),
        sa.Column("id", sa.Uuid(), nullable=False),
        _text("credit_owner"),
        _text("currency"),
        _bigint("amount"),
        _text("kind"),
        _bigint("debit_balance"),
        _bigint("debit_version"),
        _bigint("credit_balance"),
        _bigint("credit_version"),
        _created_at(),
        sa.PrimaryKeyConstraint("debit_owner", "id", name="postings_pkey"),
        sa.CheckConstraint("amount BETWEEN 1 AND 1000000000000000", "amount_in_range"),
        sa.CheckConstraint("debit_owner <> credit_owner", "two_accounts"),
        sa.CheckConstraint("debit_version > 0 AND credit_version > 0", "versions_positive"),
    )
    op.create_index(
        "postings_debit_version_key",
        "postings",
        ["debit_owner", "currency", "debit_version"],
        unique=True,
    )
    op.create_index(
        "postings_credit_version_idx", "postings", ["credit_owner", "currency", "credit_version"]
    )


def _users_and_charges() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        _created_at(),
        sa.PrimaryKeyConstraint("id", name="users_pkey"),
        sa.CheckConstraint("id > 0", "id_positive"),
    )
    op.create_table(
        "charges",
        _text("owner"),
        sa.Column("id", sa.Uuid(), nullable=False),
        _text("merchant_id"),
        _text("currency"),
        _bigint("amount"),
        _bigint("balance_after"),
        _text("idempotency_key", nullable=True),
        _created_at(),
        sa.PrimaryKeyConstraint("owner", "id", name="charges_pkey"),
        sa.CheckConstraint("amount > 0", "amount_positive"),
        sa.CheckConstraint("balance_after >= 0", "never_overdrawn"),
    )
    op.create_index("charges_merchant_id_idx", "charges", ["merchant_id", "id"])
    op.create_table(
        "idempotency_keys",
        _text("key"),
        _text("merchant_id"),
        _text("operation"),
        sa.Column("resource_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("key", "merchant_id", "operation", name="idempotency_keys_pkey"),
    )


def _access() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("scopes", ARRAY(sa.Text()), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        _created_at(),
        sa.Column("expires_at", TIMESTAMP(timezone=True), nullable=True),
        sa.Column("revoked_at", TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="api_keys_pkey"),
    )
    op.create_index("api_keys_digest_key", "api_keys", ["digest"], unique=True)
    op.create_table(
        "api_key_uses",
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("last_used_at", TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="api_key_uses_pkey"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"]),
    )
    installation = op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("pepper", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="installation_pkey"),
        sa.CheckConstraint("id = 1", "single_row"),
    )
    op.bulk_insert(installation, [{"id": 1, "pepper": secrets.token_bytes(32)}])
