"""The outbox's tables: an append-only log, a small hot queue, and what remains of the dead."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Float,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from picopay.infra.models import Base, Name


class OutboxEvents(Base):
    """What has happened, byte for byte. The app may insert, read and prune, never change."""

    __tablename__ = "outbox_events"
    __table_args__ = (
        CheckConstraint("seq > 0", "seq_positive"),
        # For pruning: tiny, since time only grows.
        Index("outbox_events_occurred_at_idx", "occurred_at", postgresql_using="brin"),
        {"info": {"distributed_by": "aggregate"}},
    )

    aggregate: Mapped[str] = mapped_column(Name, primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    id: Mapped[UUID] = mapped_column()
    type: Mapped[str] = mapped_column(Name)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    request_id: Mapped[str | None] = mapped_column(Text)
    occurred_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )


class OutboxQueue(Base):
    """What is owed: a row for each event and consumer, without payload, deleted when done."""

    __tablename__ = "outbox_queue"
    __table_args__ = (
        CheckConstraint("state IN ('ready', 'blocked', 'halted')", "state_known"),
        CheckConstraint("attempts >= 0 AND releases >= 0", "counts_not_negative"),
        CheckConstraint("state = 'ready' OR lease_token IS NULL", "only_ready_is_leased"),
        CheckConstraint("ordered OR state = 'ready'", "only_ordered_waits"),
        Index(
            "outbox_queue_due_idx",
            "consumer",
            "available_at",
            postgresql_where=text("state = 'ready'"),
        ),
        {"info": {"distributed_by": "aggregate"}},
    )

    aggregate: Mapped[str] = mapped_column(Name, primary_key=True)
    consumer: Mapped[str] = mapped_column(Name, primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(Name)
    ordered: Mapped[bool] = mapped_column()
    available_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    releases: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    lease_token: Mapped[UUID | None] = mapped_column()
    leased_by: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)


class OutboxConsumed(Base):
    """Proof of an effect: written in its transaction, so there is never a second one.

    Pruned together with its event.
    """

    __tablename__ = "outbox_consumed"
    __table_args__ = ({"info": {"distributed_by": "aggregate"}},)

    aggregate: Mapped[str] = mapped_column(Name, primary_key=True)
    consumer: Mapped[str] = mapped_column(Name, primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    consumed_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )


class DeadLetters(Base):
    """What was given up. Resolved once, by a person; never forgotten before."""

    __tablename__ = "dead_letters"
    __table_args__ = (
        CheckConstraint(
            "(resolved_at IS NULL) = (resolution IS NULL)"
            " AND (resolved_at IS NULL) = (resolved_by IS NULL)",
            "resolved_wholly",
        ),
        CheckConstraint("resolution IN ('replayed', 'discarded')", "resolution_known"),
        Index(
            "dead_letters_open_idx",
            "died_at",
            "id",
            postgresql_where=text("resolved_at IS NULL"),
        ),
        {"info": {"distributed_by": "aggregate"}},
    )

    aggregate: Mapped[str] = mapped_column(Name, primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    consumer: Mapped[str] = mapped_column(Name)
    seq: Mapped[int] = mapped_column(Integer)
    event_id: Mapped[UUID] = mapped_column()
    type: Mapped[str] = mapped_column(Name)
    reason: Mapped[str] = mapped_column(Name)
    attempts: Mapped[int] = mapped_column(SmallInteger)
    error: Mapped[str] = mapped_column(Text)
    halts: Mapped[bool] = mapped_column()
    ordered: Mapped[bool] = mapped_column()
    died_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True), server_default=func.now())
    resolved_at: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True))
    resolution: Mapped[str | None] = mapped_column(Name)
    resolved_by: Mapped[str | None] = mapped_column(Text)
    note: Mapped[str | None] = mapped_column(Text)


class DeadLetterAudits(Base):
    """Who replayed or discarded what, when and why. The app may only insert and read."""

    __tablename__ = "dead_letter_audits"
    __table_args__ = ({"info": {"reference": True}},)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True), server_default=func.now())
    actor: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Name)
    chosen: Mapped[str] = mapped_column(Text)
    letters: Mapped[int] = mapped_column(Integer)
    per_second: Mapped[float | None] = mapped_column(Float)
    reason: Mapped[str] = mapped_column(Text)


class WorkerDuties(Base):
    """Chores that one worker at a time sees to, for as long as it renews them."""

    __tablename__ = "worker_duties"
    __table_args__ = ({"info": {"reference": True}},)

    name: Mapped[str] = mapped_column(Name, primary_key=True)
    holder: Mapped[str] = mapped_column(Text)
    until: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))
