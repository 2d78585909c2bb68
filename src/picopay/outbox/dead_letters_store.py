"""The SQL of dead letters, for the people who resolve them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, exists, func, insert, select

from picopay.infra.tx import Tx
from picopay.outbox.model import Chosen, DeadLetter, NewEvent, Note
from picopay.outbox.tables import DeadLetterAudits, DeadLetters, OutboxEvents

# A row that halted its key is still in the queue; any other is put back into it. Of an ordered
# key only one may be claimable: the others wait until it is done, and then go by their number.
_REQUEUE: Final = """
INSERT INTO outbox_queue AS q (aggregate, consumer, seq, state, ordered, available_at)
SELECT back.aggregate, back.consumer, back.seq,
       CASE WHEN back.ordered AND (
              row_number() OVER (PARTITION BY back.aggregate, back.consumer, back.ordered
                                 ORDER BY back.seq) > 1
              OR EXISTS (SELECT FROM outbox_queue o
                          WHERE o.aggregate = back.aggregate AND o.consumer = back.consumer
                            AND o.ordered AND o.state <> 'blocked' AND o.seq <> back.seq))
            THEN 'blocked' ELSE 'ready' END,
       back.ordered, clock_timestamp() + back.delay * interval '1 second'
  FROM unnest($1::text[], $2::text[], $3::int[], $4::bool[], $5::float8[])
       AS back(aggregate, consumer, seq, ordered, delay)
ON CONFLICT (aggregate, consumer, seq) DO UPDATE
   SET state = excluded.state, available_at = excluded.available_at, attempts = 0, releases = 0,
       error = NULL
"""

_DROP_HALTED: Final = """
DELETE FROM outbox_queue q
 USING unnest($1::text[], $2::text[], $3::int[]) AS gone(aggregate, consumer, seq)
 WHERE q.aggregate = gone.aggregate AND q.consumer = gone.consumer AND q.seq = gone.seq
   AND q.state = 'halted' AND q.aggregate = ANY($1::text[])
"""

_RESOLVE: Final = """
UPDATE dead_letters d
   SET resolved_at = clock_timestamp(), resolution = $3, resolved_by = $4, note = $5
  FROM unnest($1::text[], $2::uuid[]) AS these(aggregate, id)
 WHERE d.aggregate = these.aggregate AND d.id = these.id AND d.resolved_at IS NULL
   AND d.aggregate = ANY($1::text[])
"""


async def select_page(
    tx: Tx, chosen: Chosen, after: UUID | None, limit: int, *, resolved: bool
) -> list[DeadLetter]:
    """Newest first, by id: a UUIDv7 begins with its time."""
    query = _letters(chosen).order_by(DeadLetters.id.desc()).limit(limit)
    if not resolved:
        query = query.where(DeadLetters.resolved_at.is_(None))
    if after is not None:
        query = query.where(DeadLetters.id < after)
    return [_letter(row) for row in await tx.execute(query)]


async def select_letter(tx: Tx, letter_id: UUID) -> tuple[DeadLetter, bytes] | None:
    """The letter, and the body of its event."""
    query = (
        select(DeadLetters.__table__, OutboxEvents.body)
        .join(
            OutboxEvents,
            (OutboxEvents.aggregate == DeadLetters.aggregate)
            & (OutboxEvents.seq == DeadLetters.seq)
            & (OutboxEvents.id == DeadLetters.event_id),
            isouter=True,
        )
        .where(DeadLetters.id == letter_id)
    )
    row = (await tx.execute(query)).one_or_none()
    return (_letter(row), row.body or b"") if row else None


async def count_open(tx: Tx, chosen: Chosen) -> int:
    query = select(func.count()).select_from(DeadLetters).where(*_conditions(chosen))
    return (await tx.execute(query.where(DeadLetters.resolved_at.is_(None)))).scalar_one()


async def now(tx: Tx) -> datetime:
    return await tx.driver.fetchval("SELECT clock_timestamp()")


async def lock_open(tx: Tx, chosen: Chosen, limit: int) -> list[DeadLetter]:
    """Oldest first, so that ordered events go back in their order."""
    query = _letters(chosen).where(DeadLetters.resolved_at.is_(None))
    query = query.order_by(DeadLetters.died_at, DeadLetters.id).limit(limit).with_for_update()
    return [_letter(row) for row in await tx.execute(query)]


async def lock_like(tx: Tx, like: NewEvent) -> list[DeadLetter]:
    """The open ones whose event says what this one would."""
    query = _letters(Chosen(type=like.type)).where(
        DeadLetters.aggregate == like.aggregate,
        DeadLetters.consumer.in_(like.consumers),
        DeadLetters.resolved_at.is_(None),
        exists().where(
            OutboxEvents.aggregate == DeadLetters.aggregate,
            OutboxEvents.seq == DeadLetters.seq,
            OutboxEvents.body == like.body,
        ),
    )
    return [_letter(row) for row in await tx.execute(query.with_for_update())]


async def resolve(tx: Tx, letters: Sequence[DeadLetter], note: Note) -> None:
    keys = [letter.aggregate for letter in letters], [letter.id for letter in letters]
    rest = (note.resolution, note.actor, note.reason)
    tag = await tx.driver.execute(_RESOLVE, *keys, *rest)
    assert tag == f"UPDATE {len(letters)}", tag


async def requeue(tx: Tx, letters: Sequence[DeadLetter], delays: Sequence[float]) -> None:
    ordered = [letter.ordered for letter in letters]
    await tx.driver.execute(_REQUEUE, *_columns(letters), ordered, delays)


async def drop_halted(tx: Tx, letters: Sequence[DeadLetter]) -> None:
    await tx.driver.execute(_DROP_HALTED, *_columns(letters))


async def insert_audit(tx: Tx, audit_id: UUID, note: Note, chosen: Chosen, letters: int) -> None:
    values = {
        "id": audit_id,
        "actor": note.actor,
        "action": note.resolution,
        "chosen": str({k: v for k, v in chosen._asdict().items() if v is not None}),
        "letters": letters,
        "per_second": note.per_second,
        "reason": note.reason,
    }
    await tx.execute(insert(DeadLetterAudits).values(values))


def _letters(chosen: Chosen) -> Select[Any]:
    return select(DeadLetters.__table__).where(*_conditions(chosen))


def _conditions(chosen: Chosen) -> list[ColumnElement[bool]]:
    conditions = [
        column == value
        for column, value in (
            (DeadLetters.consumer, chosen.consumer),
            (DeadLetters.type, chosen.type),
            (DeadLetters.reason, chosen.reason),
        )
        if value is not None
    ]
    if chosen.ids is not None:
        conditions.append(DeadLetters.id.in_(chosen.ids))
    if chosen.died_after is not None:
        conditions.append(DeadLetters.died_at > chosen.died_after)
    if chosen.died_before is not None:
        conditions.append(DeadLetters.died_at < chosen.died_before)
    return conditions


def _columns(letters: Sequence[DeadLetter]) -> tuple[list[str], list[str], list[int]]:
    return (
        [letter.aggregate for letter in letters],
        [letter.consumer for letter in letters],
        [letter.seq for letter in letters],
    )


def _letter(row: Row[Any]) -> DeadLetter:
    return DeadLetter(
        row.id, row.aggregate, row.seq, row.consumer, row.event_id, row.type, row.reason,
        row.attempts, row.error, row.died_at, row.halts, row.ordered, row.resolved_at,
        row.resolution, row.resolved_by, row.note,
    )  # fmt: skip
