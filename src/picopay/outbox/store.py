"""The outbox's SQL. Due times and leases are of the database's clock, and every write is fenced."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from picopay.infra import tracing
from picopay.infra.tx import Tx, bigints, texts
from picopay.outbox.model import Claim, Event, Key, NewEvent, Reason

# Log and queue in one trip. An ordered event waits behind its elders: those in the queue, and
# those of this statement. Two transactions that append to one aggregate hold its row's lock, or
# else the log's primary key stops the second.
_APPEND: Final = """
WITH new AS (
  SELECT *, row_number() OVER (PARTITION BY aggregate ORDER BY number) AS nth
    FROM unnest($1::text::text[], $2::uuid[], $3::text::text[], $4::bytea[], $5::text::text[])
         WITH ORDINALITY AS n(aggregate, id, type, body, request_id, number)
), logged AS (
  INSERT INTO outbox_events (aggregate, seq, id, type, body, request_id)
  SELECT new.aggregate, new.nth + coalesce(
           (SELECT max(e.seq) FROM outbox_events e WHERE e.aggregate = new.aggregate), 0),
         new.id, new.type, new.body, new.request_id
    FROM new
  RETURNING aggregate, seq, id
)
INSERT INTO outbox_queue (aggregate, consumer, seq, state, ordered, available_at)
SELECT logged.aggregate, owed.consumer, logged.seq,
       CASE WHEN owed.ordered AND (
              row_number() OVER (PARTITION BY logged.aggregate, owed.consumer, owed.ordered
                                 ORDER BY logged.seq) > 1
              OR EXISTS (SELECT FROM outbox_queue q
                          WHERE q.aggregate = logged.aggregate AND q.consumer = owed.consumer
                            AND q.ordered))
            THEN 'blocked' ELSE 'ready' END,
       owed.ordered, clock_timestamp() + owed.delay * interval '1 second'
  FROM unnest($6::uuid[], $7::text::text[], $8::float8[], $9::bool[])
       AS owed(id, consumer, delay, ordered)
  JOIN logged USING (id)
"""

# The rows are chosen first, so that LIMIT holds whatever the plan. `statement_timestamp()`, not
# `clock_timestamp()`: only what is stable can be looked up in the index. A row that still has a
# token is silent: its last attempt ended without a word. It is claimed alone, so that one which
# kills its process does not use up the attempts of others. The disk is not waited for: a claim
# that a crash of the server undoes can be made again, and what its owner then commits is on disk
# after it, or refused by the fence.
_CLAIM: Final = """
WITH hasty AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'off', true)
), due AS MATERIALIZED (
  SELECT aggregate, consumer, seq, available_at, lease_token IS NOT NULL AS silent
    FROM outbox_queue
   WHERE consumer = $1 AND state = 'ready' AND available_at <= statement_timestamp()
     AND available_at > statement_timestamp() - $6::float8 * interval '1 second'
   ORDER BY available_at
   LIMIT $2
     FOR UPDATE SKIP LOCKED
), placed AS (
  SELECT *, row_number() OVER oldest AS place, first_value(silent) OVER oldest AS first_is_silent
    FROM due
  WINDOW oldest AS (ORDER BY available_at, aggregate, seq)
), claimed AS (
  UPDATE outbox_queue q
     SET available_at = clock_timestamp() + $3::float8 * interval '1 second',
         attempts = least(q.attempts + 1, 32767), lease_token = $4, leased_by = $5
    FROM placed p
   WHERE q.aggregate = p.aggregate AND q.consumer = p.consumer AND q.seq = p.seq
     AND (p.place = 1 OR NOT (p.silent OR p.first_is_silent))
  RETURNING q.aggregate, q.seq, q.attempts, p.available_at AS due_at, q.error, p.silent
)
SELECT c.aggregate, c.seq, e.id, e.type, e.body, e.request_id, e.occurred_at, c.attempts,
       extract(epoch FROM clock_timestamp() - c.due_at)::float8, c.error,
       (SELECT count(*) FROM claimed) < (SELECT count(*) FROM due), c.silent
  FROM hasty CROSS JOIN claimed c
  JOIN outbox_events e ON e.aggregate = c.aggregate AND e.seq = c.seq
"""

_MINE: Final = """
  FROM unnest($1::text[], $2::text::text[], $3::text::int[], $4::uuid[])
       AS mine(aggregate, consumer, seq, token)
 WHERE q.aggregate = mine.aggregate AND q.consumer = mine.consumer AND q.seq = mine.seq
   AND q.lease_token = mine.token AND q.aggregate = ANY($1::text[])
"""
_FENCE: Final = _MINE.replace("FROM", "USING", 1)

_ACK: Final = f"""
DELETE FROM outbox_queue q {_FENCE}
RETURNING q.aggregate, q.consumer, q.seq, q.ordered
"""  # noqa: S608 - ours

# What is locked is being settled: it needs no lease any more, and must not be waited for.
_RENEW: Final = f"""
WITH held AS MATERIALIZED (
  SELECT q.aggregate, q.consumer, q.seq FROM outbox_queue q, {_MINE.replace("FROM", "", 1)}
     FOR UPDATE OF q SKIP LOCKED
)
UPDATE outbox_queue q SET available_at = clock_timestamp() + $5::float8 * interval '1 second'
  FROM held
 WHERE q.aggregate = held.aggregate AND q.consumer = held.consumer AND q.seq = held.seq
RETURNING q.aggregate, q.consumer, q.seq
"""  # noqa: S608 - ours

# Attempts are counted at the claim: what did not count is taken back, up to a number of times.
_POSTPONE: Final = f"""
UPDATE outbox_queue q
   SET available_at = clock_timestamp() + $5::float8 * interval '1 second',
       lease_token = NULL, leased_by = NULL, error = coalesce($6, q.error),
       attempts = q.attempts - CASE WHEN $7 AND q.releases < $8 THEN 1 ELSE 0 END,
       releases = q.releases + CASE WHEN $7 AND q.releases < $8 THEN 1 ELSE 0 END
{_MINE} RETURNING q.aggregate, q.consumer, q.seq
"""  # noqa: S608 - ours

# The next of each key, should it be the head now. A halted or living elder keeps it blocked.
_UNBLOCK: Final = """
UPDATE outbox_queue q
   SET state = 'ready', available_at = greatest(q.available_at, clock_timestamp())
  FROM unnest($1::text[], $2::text::text[]) AS freed(aggregate, consumer)
 WHERE q.aggregate = freed.aggregate AND q.consumer = freed.consumer AND q.state = 'blocked'
   AND q.aggregate = ANY($1::text[])
   AND q.seq = (SELECT min(h.seq) FROM outbox_queue h
                 WHERE h.aggregate = freed.aggregate AND h.consumer = freed.consumer AND h.ordered)
"""

# Acknowledgement and proof in one trip. What is proven already was done under an earlier lease.
_SETTLE: Final = f"""
WITH done AS ({_ACK}), proven AS (
  INSERT INTO outbox_consumed (aggregate, consumer, seq)
  SELECT aggregate, consumer, seq FROM done
  ON CONFLICT DO NOTHING
  RETURNING aggregate, consumer, seq
)
SELECT done.aggregate, done.consumer, done.seq, done.ordered, proven.seq IS NOT NULL AS is_new
  FROM done LEFT JOIN proven USING (aggregate, consumer, seq)
"""  # noqa: S608 - ours

_BURY: Final = f"""
WITH dead AS (
  UPDATE outbox_queue q
     SET state = CASE WHEN q.ordered AND $5 THEN 'halted' ELSE 'ready' END,
         lease_token = NULL, leased_by = NULL, error = $6
  {_MINE}
  RETURNING q.aggregate, q.consumer, q.seq, q.attempts, q.ordered
)
INSERT INTO dead_letters
       (aggregate, id, consumer, seq, event_id, type, reason, attempts, error, halts, ordered)
SELECT dead.aggregate, $7, dead.consumer, dead.seq, e.id, e.type, $8, dead.attempts, $6,
       dead.ordered AND $5, dead.ordered
  FROM dead JOIN outbox_events e ON e.aggregate = dead.aggregate AND e.seq = dead.seq
RETURNING halts, ordered
"""  # noqa: S608 - ours

_NEXT_DUE: Final = """
SELECT extract(epoch FROM min(available_at) - statement_timestamp())::float8
  FROM outbox_queue WHERE consumer = $1 AND state = 'ready'
   AND available_at > statement_timestamp() - $2::float8 * interval '1 second'
"""


async def append(tx: Tx, events: Sequence[NewEvent]) -> None:
    owed = [
        (e.id, consumer, e.delay_seconds, e.ordered) for e in events for consumer in e.consumers
    ]
    ids, consumers, delays, ordered = zip(*owed, strict=True) if owed else ((), (), (), ())
    await tx.driver.execute(
        _APPEND,
        texts([e.aggregate for e in events]),
        [e.id for e in events],
        texts([e.type for e in events]),
        [e.body for e in events],
        texts([e.request_id for e in events]),
        ids,
        texts(consumers),
        delays,
        ordered,
    )


class Lease(NamedTuple):
    """For how long, under which token, and whose."""

    seconds: float
    token: UUID
    owner: str


class Burial(NamedTuple):
    """With `halt` an ordered event stays as its key's head, never due, and its followers wait."""

    letter_id: UUID
    reason: Reason
    error: str
    halt: bool


async def claim(
    tx: Tx, consumer: str, limit: int, lease: Lease, look_back_seconds: float
) -> list[Claim]:
    rows = await tx.driver.fetch(_CLAIM, consumer, limit, *lease, look_back_seconds)
    return [Claim(_event(row), consumer, lease.token, *row[7:]) for row in rows]


def _event(row: Any) -> Event:  # noqa: ANN401 - a driver's row
    aggregate, seq, event_id, kind, body, kept, occurred_at = row[:7]
    request_id, traceparent = tracing.split(kept)
    return Event(aggregate, seq, event_id, kind, body, request_id, occurred_at, traceparent)


async def acknowledge(tx: Tx, claims: Sequence[Claim]) -> set[Key]:
    """Delete what is done, and let the followers of ordered events go. Those that were ours."""
    rows = await tx.driver.fetch(_ACK, *_columns(claims))
    await unblock(
        tx, [(aggregate, consumer) for aggregate, consumer, _, ordered in rows if ordered]
    )
    return {Key(aggregate, consumer, seq) for aggregate, consumer, seq, _ in rows}


class Settled(NamedTuple):
    """The keys that still were ours, and those of them whose effect is to be made now."""

    mine: set[Key]
    new: set[Key]


async def settle(tx: Tx, claims: Sequence[Claim]) -> Settled:
    """Acknowledge and prove: right at the start of the transaction that makes the effect."""
    rows = await tx.driver.fetch(_SETTLE, *_columns(claims))
    await unblock(
        tx, [(aggregate, consumer) for aggregate, consumer, _, ordered, _ in rows if ordered]
    )
    return Settled(
        {Key(*row[:3]) for row in rows}, {Key(*row[:3]) for row in rows if row["is_new"]}
    )


async def unblock(tx: Tx, keys: Collection[tuple[str, str]]) -> None:
    if keys:
        aggregates, consumers = zip(*sorted(set(keys)), strict=True)
        await tx.driver.execute(_UNBLOCK, aggregates, texts(consumers))


async def renew(tx: Tx, claims: Sequence[Claim], lease_seconds: float) -> set[Key]:
    return _keys(await tx.driver.fetch(_RENEW, *_columns(claims), lease_seconds))


async def postpone(
    tx: Tx, claims: Sequence[Claim], seconds: float, error: str | None, releases_max: int | None
) -> set[Key]:
    """Due again in so many seconds. With `releases_max` the attempt is given back so often."""
    counted_back = releases_max is not None
    rest = (seconds, error, counted_back, releases_max or 0)
    return _keys(await tx.driver.fetch(_POSTPONE, *_columns(claims), *rest))


async def bury(tx: Tx, claim: Claim, burial: Burial) -> bool:
    """Move the row to the dead letters; False if the lease was lost."""
    letter_id, reason, error, halt = burial
    arguments = (*_columns([claim]), halt, error, letter_id, reason)
    row = await tx.driver.fetchrow(_BURY, *arguments)
    if row is None:
        return False
    if not row["halts"]:
        await _forget(tx, claim.event.aggregate, claim.consumer, claim.event.seq)
        if row["ordered"]:
            await unblock(tx, [(claim.event.aggregate, claim.consumer)])
    return True


async def _forget(tx: Tx, aggregate: str, consumer: str, seq: int) -> None:
    await tx.driver.execute(
        "DELETE FROM outbox_queue WHERE aggregate = $1 AND consumer = $2 AND seq = $3",
        aggregate,
        consumer,
        seq,
    )


async def next_due_seconds(tx: Tx, consumer: str, look_back_seconds: float) -> float | None:
    return await tx.driver.fetchval(_NEXT_DUE, consumer, look_back_seconds)


def _columns(claims: Sequence[Claim]) -> tuple[list[str], str, str, list[UUID]]:
    ordered = sorted(claims, key=lambda claim: (claim.event.aggregate, claim.event.seq))
    return (
        [claim.event.aggregate for claim in ordered],
        texts([claim.consumer for claim in ordered]),
        bigints(claim.event.seq for claim in ordered),
        [claim.token for claim in ordered],
    )


def _keys(rows: Iterable[Any]) -> set[Key]:
    return {Key(*row) for row in rows}
