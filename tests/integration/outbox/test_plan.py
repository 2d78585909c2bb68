"""With a million rows owed, what a worker asks for is found in an index, whatever is known of them.

Statistics may be missing, as when a queue fills at once, and plans generic, as prepared statements
have them after a few calls.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, cast

import asyncpg
import pytest
from tests.conftest import TABLES, Stores

from picopay.infra import sessions
from picopay.outbox import store
from picopay.outbox.model import ALL_TIME_SECONDS

EVENTS = 334_000  # each is owed to three consumers
CLAIMED = 50
# A claim looks each row up in two indexes and a table, and writes it into three; ten pages each.
BUFFERS_MAX = {"claim": 30 * CLAIMED, "next_due": 20, "settle": 30 * CLAIMED}
INDEX = {
    "claim": "outbox_queue_due_idx",
    "next_due": "outbox_queue_due_idx",
    "settle": "outbox_queue_pkey",
}
STATEMENTS = {
    "claim": store._CLAIM,  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the real one
    "next_due": store._NEXT_DUE,  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - likewise
    "settle": store._SETTLE,  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - likewise
}
TOKEN = "00000000-0000-0000-0000-000000000001"
LEASED = [f"thing:{3 * number + 1:07}" for number in range(CLAIMED)]  # of those that are ready
# Of each consumer's rows a part is due, a part in the future, and a part waits for its elder.
_FILL = f"""
INSERT INTO outbox_events (aggregate, seq, id, type, body)
SELECT 'thing:' || lpad(n::text, 7, '0'), 1, gen_random_uuid(), 'thing.happened', '{{}}'
  FROM generate_series(1, {EVENTS}) n;
INSERT INTO outbox_queue (aggregate, consumer, seq, state, ordered, available_at)
SELECT 'thing:' || lpad(n::text, 7, '0'), consumer, 1,
       CASE n % 3 WHEN 0 THEN 'blocked' ELSE 'ready' END, n % 3 = 0,
       now() + (n::bigint * 7919 % {EVENTS} - {EVENTS} / 2) * interval '1 ms'
             + CASE WHEN consumer = 'later' THEN interval '1 day' ELSE interval '0' END
  FROM generate_series(1, {EVENTS}) n, unnest('{{busy,other,later}}'::text[]) consumer
"""  # noqa: S608 - ours
_FORGET_STATISTICS = """
SELECT pg_clear_attribute_stats('public', c.relname, a.attname, false)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.relname IN ('outbox_queue', 'outbox_events') AND a.attnum > 0
"""
Plans = dict[tuple[str, str, str], dict[str, Any]]


@pytest.fixture(scope="module")
async def plans(stores: Stores) -> AsyncIterator[Plans]:
    """By (statistics, kind of plan, statement)."""
    owner = await asyncpg.connect(stores.owner_url)
    await owner.execute(f"TRUNCATE {TABLES}")
    await _alter(owner, "SET (autovacuum_enabled = off)")
    await owner.execute("ANALYZE outbox_queue, outbox_events")
    await owner.execute(_FILL)
    await owner.execute(
        """UPDATE outbox_queue SET lease_token = $1, available_at = now() + interval '1 hour'
            WHERE consumer = 'busy' AND aggregate = ANY($2::text[])""",
        TOKEN,
        LEASED,
    )
    seqscan = sessions.BACKGROUND.settings["enable_seqscan"]  # as the relay's sessions have it
    await owner.execute(f"SET enable_seqscan = {seqscan}")
    for name, statement in STATEMENTS.items():
        await owner.execute(f"PREPARE {name} AS {statement}")
    found: Plans = {}
    for statistics, work in (
        ("of an empty table", "SELECT 1"),
        ("none", _FORGET_STATISTICS),
        ("current", "ANALYZE outbox_queue, outbox_events"),
    ):
        await owner.execute(work)
        for kind in ("custom", "generic"):
            await owner.execute(f"SET plan_cache_mode = force_{kind}_plan")
            for name in STATEMENTS:
                found[statistics, kind, name] = await _explain(owner, name)
    yield found
    await owner.execute(f"TRUNCATE {TABLES}")
    await owner.execute("ANALYZE outbox_queue, outbox_events")
    await _alter(owner, "RESET (autovacuum_enabled)")
    await owner.close()


async def _alter(owner: asyncpg.Connection, change: str) -> None:
    for table in ("outbox_queue", "outbox_events"):
        await owner.execute(f"ALTER TABLE {table} {change}")


async def _explain(owner: asyncpg.Connection, name: str) -> dict[str, Any]:
    """Run it, and take it back."""
    many = {"consumer": "busy", "seq": "1", "token": TOKEN}
    lists = ", ".join(f"'{{{','.join([value] * CLAIMED)}}}'" for value in many.values())
    arguments = {
        "claim": f"'busy', {CLAIMED}, 30, '{TOKEN}', 'me', {ALL_TIME_SECONDS}",
        "next_due": f"'busy', {ALL_TIME_SECONDS}",
        "settle": f"'{{{','.join(LEASED)}}}', {lists}",
    }
    transaction = owner.transaction()
    await transaction.start()
    try:
        text = await owner.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {name}({arguments[name]})"
        )
    finally:
        await transaction.rollback()
    (explained,) = json.loads(text)
    return explained["Plan"]


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in cast("list[dict[str, Any]]", plan.get("Plans", [])):
        yield from nodes(child)


@pytest.mark.parametrize("statement", list(STATEMENTS))
@pytest.mark.parametrize("kind", ["custom", "generic"])
@pytest.mark.parametrize("statistics", ["of an empty table", "none", "current"])
def test_a_million_rows_are_found_by_an_index_alone(
    plans: Plans, statistics: str, kind: str, statement: str
) -> None:
    plan = plans[statistics, kind, statement]
    shown = json.dumps(plan, indent=1)
    assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan)}, shown
    # What the caller gave and what is already chosen may be sorted, what is owed may not.
    sorts = [node for node in nodes(plan) if node["Node Type"].endswith("Sort")]
    given = {child["Node Type"] for sort in sorts for child in sort["Plans"]}
    assert given <= {"Function Scan", "CTE Scan"}, shown
    assert INDEX[statement] in {node.get("Index Name") for node in nodes(plan)}, shown
    touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    assert touched <= BUFFERS_MAX[statement], shown
    if statement != "next_due":
        assert plan["Actual Rows"] == CLAIMED
