"""The SQL of chores: who holds them, how deep the queue is, what is stuck, what is old."""

from typing import Final

from picopay.infra.tx import Tx
from picopay.outbox.model import Depth

# A blocked first one alone tells nothing: a replayed event waits for a younger one to end.
_BLOCKED_HEADS: Final = """
SELECT aggregate, consumer FROM outbox_queue
 WHERE ordered
 GROUP BY aggregate, consumer
HAVING bool_and(state = 'blocked')
 LIMIT $1
"""

_DEPTH: Final = """
SELECT count(*), count(*) FILTER (WHERE state = 'ready' AND available_at <= now()),
       count(*) FILTER (WHERE state <> 'ready'),
       coalesce(extract(epoch FROM now() - min(available_at)
                FILTER (WHERE state = 'ready' AND available_at <= now())), 0)::float8,
       (SELECT count(*) FROM dead_letters WHERE resolved_at IS NULL)
  FROM outbox_queue
"""

_DUTY: Final = """
INSERT INTO worker_duties AS d (name, holder, until)
VALUES ($1, $2, clock_timestamp() + $3::float8 * interval '1 second')
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
 WHERE d.holder = excluded.holder OR d.until < clock_timestamp()
RETURNING true
"""

# A proof lives as long as its event: numbers begin anew once an aggregate's events are all gone,
# and an old proof would then stand for an effect that a new event never had.
_PRUNE: Final = """
WITH events AS (
  DELETE FROM outbox_events e
   WHERE (aggregate, seq) IN (
     SELECT aggregate, seq FROM outbox_events o
      WHERE occurred_at < now() - $1::float8 * interval '1 day'
        AND NOT EXISTS (SELECT FROM outbox_queue q
                         WHERE q.aggregate = o.aggregate AND q.seq = o.seq)
        AND NOT EXISTS (SELECT FROM dead_letters d
                         WHERE d.aggregate = o.aggregate AND d.seq = o.seq
                           AND d.resolved_at IS NULL)
      LIMIT $2)
  RETURNING aggregate, seq
), proofs AS (
  DELETE FROM outbox_consumed c USING events e
   WHERE c.aggregate = e.aggregate AND c.seq = e.seq
  RETURNING 1
)
SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM proofs)
"""


async def blocked_heads(tx: Tx, limit: int) -> list[tuple[str, str]]:
    """Keys whose first event waits for an elder that is gone: an insert that met its deletion."""
    return [tuple(row) for row in await tx.driver.fetch(_BLOCKED_HEADS, limit)]


async def depth(tx: Tx) -> Depth:
    row = await tx.driver.fetchrow(_DEPTH)
    assert row is not None
    return Depth(*row)


async def hold_duty(tx: Tx, name: str, holder: str, seconds: float) -> bool:
    """Whether the duty is the holder's now, for so many seconds."""
    return bool(await tx.driver.fetchval(_DUTY, name, holder, seconds))


async def prune(tx: Tx, days: float, limit: int) -> int:
    """Delete old events that nothing is owed to any more, with their proofs."""
    return await tx.driver.fetchval(_PRUNE, days, limit)
