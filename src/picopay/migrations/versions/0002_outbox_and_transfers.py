"""The outbox with its dead letters, and transfers."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The log and the audits are history: the app may prune the one, and change neither.
_GRANTS = {
    "outbox_events": "SELECT, INSERT, DELETE",
    "outbox_queue": "SELECT, INSERT, UPDATE, DELETE",
    "outbox_consumed": "SELECT, INSERT, DELETE",
    "dead_letters": "SELECT, INSERT, UPDATE (resolved_at, resolution, resolved_by, note)",
    "dead_letter_audits": "SELECT, INSERT",
    "worker_duties": "SELECT, INSERT, UPDATE",
    "transfers": "SELECT, INSERT, UPDATE (status, processed_at)",
}

# Rows come and go by the thousand a second: leave room for new versions, and vacuum often.
_HOT = (
    "fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,"
    " autovacuum_vacuum_cost_delay = 0"
)
# Only ever inserted into, and pruned from its old end.
_LOG = "autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_scale_factor = 0.02"


def upgrade() -> None:
    _outbox()
    _proofs_and_duties()
    _dead_letters()
    _transfers()
    op.execute(f"ALTER TABLE outbox_queue SET ({_HOT})")
    for table in ("outbox_events", "outbox_consumed"):
        op.execute(f"ALTER TABLE {table} SET ({_LOG})")
    for relation, privileges in _GRANTS.items():
        op.execute(f"GRANT {privileges} ON {relation} TO picopay_app")


def downgrade() -> None:
    for table in reversed(_GRANTS):
        op.drop_table(table)


def _at(
    name: str, default: sa.ColumnElement[Any] | None = None, *, nullable: bool = False
) -> sa.Column[Any]:
    return sa.Column(name, TIMESTAMP(timezone=True), server_default=default, nullable=nullable)


def _name(name: str, default: str | None = None, *, nullable: bool = False) -> sa.Column[object]:
    kind = sa.Text(collation="C")
    return sa.Column(name, kind, nullable=nullable, server_default=default)


def _text(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _uuid(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Uuid(), nullable=nullable)


def _int(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Integer(), nullable=False, autoincrement=False)


def _small(name: str, default: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.SmallInteger(), nullable=False, server_default=default)


def _flag(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _outbox() -> None:
    op.create_table(
        "outbox_events",
        _name("aggregate"),
        _int("seq"),
        _uuid("id"),
        _name("type"),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        _text("request_id", nullable=True),
        _at("occurred_at", sa.func.now()),
        sa.PrimaryKeyConstraint("aggregate", "seq", name="outbox_events_pkey"),
        sa.CheckConstraint("seq > 0", "seq_positive"),
    )
    op.create_table(
        "outbox_queue",
        _name("aggregate"),
        _name("consumer"),
        _int("seq"),
        _name("state"),
        _flag("ordered"),
        _at("available_at"),
        _small("attempts", "0"),
        _small("releases", "0"),
        _uuid("lease_token", nullable=True),
        _text("leased_by", nullable=True),
        _text("error", nullable=True),
        sa.PrimaryKeyConstraint("aggregate", "consumer", "seq", name="outbox_queue_pkey"),
        sa.CheckConstraint("state IN ('ready', 'blocked', 'halted')", "state_known"),
        sa.CheckConstraint("attempts >= 0 AND releases >= 0", "counts_not_negative"),
        sa.CheckConstraint("state = 'ready' OR lease_token IS NULL", "only_ready_is_leased"),
        sa.CheckConstraint("ordered OR state = 'ready'", "only_ordered_waits"),
    )
    op.create_index(
        "outbox_queue_due_idx",
        "outbox_queue",
        ["consumer", "available_at"],
        postgresql_where=sa.text("state = 'ready'"),
    )


def _proofs_and_duties() -> None:
    op.create_table(
        "outbox_consumed",
        _name("aggregate"),
        _name("consumer"),
        _int("seq"),
        _at("consumed_at", sa.func.now()),
        sa.PrimaryKeyConstraint("aggregate", "consumer", "seq", name="outbox_consumed_pkey"),
    )
    op.create_table(
        "worker_duties",
        _name("name"),
        _text("holder"),
        _at("until"),
        sa.PrimaryKeyConstraint("name", name="worker_duties_pkey"),
    )
    op.create_index(
        "outbox_events_occurred_at_idx", "outbox_events", ["occurred_at"], postgresql_using="brin"
    )


def _dead_letters() -> None:
    op.create_table(
        "dead_letters",
        _name("aggregate"),
        _uuid("id"),
        _name("consumer"),
        _int("seq"),
        _uuid("event_id"),
        _name("type"),
        _name("reason"),
        _small("attempts"),
        _text("error"),
        _flag("halts"),
        _flag("ordered"),
        _at("died_at", sa.func.now()),
        _at("resolved_at", nullable=True),
        _name("resolution", nullable=True),
        _text("resolved_by", nullable=True),
        _text("note", nullable=True),
        sa.PrimaryKeyConstraint("aggregate", "id", name="dead_letters_pkey"),
        sa.CheckConstraint(
            "(resolved_at IS NULL) = (resolution IS NULL)"
            " AND (resolved_at IS NULL) = (resolved_by IS NULL)",
            "resolved_wholly",
        ),
        sa.CheckConstraint("resolution IN ('replayed', 'discarded')", "resolution_known"),
    )
    op.create_index(
        "dead_letters_open_idx",
        "dead_letters",
        ["died_at", "id"],
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "dead_letter_audits",
        _uuid("id"),
        _at("at", sa.func.now()),
        _text("actor"),
        _name("action"),
        _text("chosen"),
        _int("letters"),
        sa.Column("per_second", sa.Float(), nullable=True),
        _text("reason"),
        sa.PrimaryKeyConstraint("id", name="dead_letter_audits_pkey"),
    )


def _transfers() -> None:
    op.create_table(
        "transfers",
        _name("transaction_id"),
        _uuid("id"),
        _name("source"),
        _name("destination"),
        _name("currency"),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        _name("status", "PROCESSING"),
        _at("created_at", sa.func.clock_timestamp()),
        _at("processed_at", nullable=True),
        sa.PrimaryKeyConstraint("transaction_id", name="transfers_pkey"),
        sa.CheckConstraint("amount BETWEEN 1 AND 1000000000000000", "amount_in_range"),
        sa.CheckConstraint("source <> destination", "two_accounts"),
        sa.CheckConstraint("status IN ('PROCESSING', 'PROCESSED', 'FAILED')", "status_known"),
        sa.CheckConstraint(
            "(status = 'PROCESSED') = (processed_at IS NOT NULL)", "processed_at_when"
        ),
    )
    op.create_index("transfers_id_idx", "transfers", ["id"])
    op.create_index("transfers_source_idx", "transfers", ["source", "id"])
    op.create_index("transfers_destination_idx", "transfers", ["destination", "id"])
    op.create_index(
        "transfers_open_idx",
        "transfers",
        ["status", "id"],
        postgresql_where=sa.text("status <> 'PROCESSED'"),
    )
