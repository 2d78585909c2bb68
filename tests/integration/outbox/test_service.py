"""The engine on a real database: every transition is fenced, and counted right."""

from uuid import uuid4

import asyncpg
import pytest
from tests.integration.outbox.workers import (
    CONSUMER,
    HALTING,
    OWNER,
    SEEN,
    an_event,
    append,
    claim,
    note_events,
)

from picopay.infra.db import Db
from picopay.outbox import rules, service
from picopay.outbox.consumer import Consumer
from picopay.outbox.errors import LeaseLost, NotYet, Permanent
from picopay.outbox.model import Holder, Reason
from picopay.outbox.rules import Bury, DeferFor, RetryIn


@pytest.fixture(autouse=True)
def _forget() -> None:
    SEEN.clear()


async def rows(owner: asyncpg.Connection) -> list[tuple[int, str, int]]:
    """(seq, state, attempts) of what is in the queue."""
    query = "SELECT seq, state, attempts FROM outbox_queue ORDER BY aggregate, seq"
    return [tuple(row) for row in await owner.fetch(query)]


async def make_due(owner: asyncpg.Connection) -> None:
    """As if time had passed."""
    await owner.execute("UPDATE outbox_queue SET available_at = now() - interval '1 s'")


async def test_an_event_is_claimed_once_with_its_exact_bytes(db: Db) -> None:
    body = b'{"a": 1.10, "b":"\xc3\xa9"}\n'
    event = an_event()._replace(body=body, request_id="r-1")
    await append(db, event)
    (claimed,) = await claim(db)
    assert (claimed.event.id, claimed.event.body, claimed.event.request_id) == (
        event.id,
        body,
        "r-1",
    )
    assert (claimed.attempts, claimed.event.seq) == (1, 1)
    assert await claim(db) == []


async def test_events_of_a_transaction_that_fails_are_never_told(db: Db) -> None:
    async def fail() -> None:
        async with db.begin() as tx:
            await service.append(tx, [an_event()])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await claim(db) == []


async def test_a_delayed_event_is_not_due_before_its_time(db: Db) -> None:
    await append(db, an_event(delay_seconds=60))
    assert await claim(db) == []
    assert 58 < (await service.next_due_seconds(db, CONSUMER) or 0) <= 60


async def test_what_is_handled_together_is_gone_and_never_handled_again(
    db: Db, owner: asyncpg.Connection
) -> None:
    await append(db, an_event(), an_event("thing:2"))
    claims = await claim(db)
    await service.handle_together(db, CONSUMER, claims)
    assert SEEN == [1, 1]
    assert await rows(owner) == []
    # Even if somebody puts the row back, as a replay does.
    await owner.execute(
        """INSERT INTO outbox_queue (aggregate, consumer, seq, state, ordered, available_at)
           VALUES ('thing:1', 'tests', 1, 'ready', false, now())"""
    )
    await service.handle_together(db, CONSUMER, await claim(db))
    assert SEEN == [1, 1]
    assert await rows(owner) == []


async def test_a_stale_owner_changes_nothing(db: Db, owner: asyncpg.Connection) -> None:
    await append(db, an_event())
    (stale,) = await claim(db)
    await make_due(owner)
    (fresh,) = await claim(db)
    assert fresh.token != stale.token
    assert await service.acknowledge(db, [stale]) == set()
    assert await service.renew(db, [stale], 30) == set()
    await service.release(db, [stale])
    with pytest.raises(LeaseLost):
        await service.handle_together(db, CONSUMER, [stale])
    for verdict in (RetryIn(1), DeferFor(1), Bury(Reason.EXHAUSTED)):
        with pytest.raises(LeaseLost):
            await service.fail(db, CONSUMER, stale, ValueError("late"), verdict)
    assert await rows(owner) == [(1, "ready", 2)]
    assert await owner.fetchval("SELECT count(*) FROM outbox_consumed") == 0
    assert await owner.fetchval("SELECT count(*) FROM dead_letters") == 0
    assert await service.acknowledge(db, [fresh]) == {fresh.key}


async def test_what_ended_without_a_word_is_claimed_alone(
    db: Db, owner: asyncpg.Connection
) -> None:
    await append(db, *(an_event(f"thing:{number}") for number in range(3)))
    assert len(await claim(db)) == 3
    await make_due(owner)
    await append(db, an_event("thing:new"))
    silent = [await claim(db) for _ in range(3)]
    assert [[c.attempts for c in claims] for claims in silent] == [[2], [2], [2]]
    assert [c.attempts for c in await claim(db)] == [1]
    for claims in silent[:2]:
        await service.fail(db, CONSUMER, claims[0], ValueError("a word"), RetryIn(0))
    assert [c.attempts for c in await claim(db)] == [3, 3]


async def test_what_ended_without_a_word_is_claimed_by_nobody_beside_others(
    db: Db, owner: asyncpg.Connection
) -> None:
    await append(db, an_event("thing:silent"))
    await claim(db)
    await append(db, an_event("thing:1"), an_event("thing:2"))
    await make_due(owner)
    await owner.execute(
        "UPDATE outbox_queue SET available_at = now() - interval '1 hour'"
        " WHERE aggregate = 'thing:1'"
    )
    assert {c.event.aggregate for c in await claim(db)} == {"thing:1", "thing:2"}
    assert [c.event.aggregate for c in await claim(db)] == ["thing:silent"]


async def test_attempts_count_at_the_claim_and_releases_give_them_back(
    db: Db, owner: asyncpg.Connection
) -> None:
    await append(db, an_event())
    (claimed,) = await claim(db)
    await service.release(db, [claimed])
    assert await rows(owner) == [(1, "ready", 0)]
    for _ in range(rules.RELEASES_MAX + 2):
        (claimed,) = await claim(db)
        await service.release(db, [claimed])
    assert await rows(owner) == [(1, "ready", 3)]


async def test_a_failed_event_comes_back_after_its_delay(db: Db, owner: asyncpg.Connection) -> None:
    await append(db, an_event())
    (claimed,) = await claim(db)
    await service.fail(db, CONSUMER, claimed, ValueError("not now"), RetryIn(4))
    assert await claim(db) == []
    assert 3 < (await service.next_due_seconds(db, CONSUMER) or 0) <= 4
    assert await owner.fetchval("SELECT error FROM outbox_queue") == "ValueError: not now"
    await make_due(owner)
    (again,) = await claim(db)
    await service.fail(db, CONSUMER, again, NotYet(5, "early"), DeferFor(5))
    assert await rows(owner) == [(1, "ready", 1)]


async def test_a_buried_event_is_a_dead_letter(db: Db, owner: asyncpg.Connection) -> None:
    await append(db, an_event())
    (claimed,) = await claim(db)
    error = Permanent("no such thing\0")
    await service.fail(db, CONSUMER, claimed, error, Bury(Reason.REJECTED))
    assert await rows(owner) == []
    letter = await owner.fetchrow("SELECT * FROM dead_letters")
    assert letter is not None
    assert (letter["reason"], letter["attempts"], letter["error"]) == (
        "rejected",
        1,
        "Permanent: no such thing",
    )
    assert letter["event_id"] == claimed.event.id


async def test_ordered_events_are_claimed_one_after_the_other(
    db: Db, owner: asyncpg.Connection
) -> None:
    await append(db, an_event(ordered=True), an_event(ordered=True))
    await append(db, an_event(ordered=True), an_event("thing:2", ordered=True))
    for seq in (1, 2, 3):
        claims = [c for c in await claim(db) if c.event.aggregate == "thing:1"]
        assert [c.event.seq for c in claims] == [seq]
        assert await claim(db) == []
        await service.handle_together(db, CONSUMER, claims)
    assert await owner.fetchval("SELECT count(*) FROM outbox_queue") == 1


@pytest.mark.parametrize(("consumer", "left"), [(CONSUMER, [2]), (HALTING, [])])
async def test_when_the_head_dies_its_followers_go_on_or_wait(
    db: Db, owner: asyncpg.Connection, consumer: Consumer, left: list[int]
) -> None:
    await append(db, an_event(ordered=True), an_event(ordered=True))
    (head,) = await claim(db)
    await service.fail(db, consumer, head, ValueError("no"), Bury(Reason.EXHAUSTED))
    assert await service.sweep(db) == 0
    assert [c.event.seq for c in await claim(db)] == left
    if not left:
        assert await rows(owner) == [(1, "halted", 1), (2, "blocked", 0)]


async def test_a_follower_whose_elder_went_unseen_is_swept_free(
    db: Db, owner: asyncpg.Connection
) -> None:
    await append(db, an_event(ordered=True), an_event(ordered=True))
    await owner.execute("DELETE FROM outbox_queue WHERE seq = 1")
    assert await claim(db) == []
    assert await service.sweep(db) == 1
    assert [c.event.seq for c in await claim(db)] == [2]


async def test_a_duty_is_held_by_one_until_it_lets_go(db: Db, owner: asyncpg.Connection) -> None:
    assert await service.hold_duty(db, "sweep", "a", 30)
    assert await service.hold_duty(db, "sweep", "a", 30)
    assert not await service.hold_duty(db, "sweep", "b", 30)
    await owner.execute("UPDATE worker_duties SET until = now() - interval '1 s'")
    assert await service.hold_duty(db, "sweep", "b", 30)


async def test_pruning_keeps_what_is_owed_or_dead_and_unresolved(
    db: Db, owner: asyncpg.Connection
) -> None:
    for number in range(4):
        await append(db, an_event(f"thing:{number}"))
    claims = {c.event.aggregate: c for c in await claim(db)}
    await service.handle_together(db, CONSUMER, [claims["thing:0"]])
    await service.fail(db, CONSUMER, claims["thing:1"], ValueError(), Bury(Reason.EXHAUSTED))
    await service.fail(db, CONSUMER, claims["thing:2"], ValueError(), Bury(Reason.EXHAUSTED))
    await owner.execute(
        """UPDATE dead_letters SET resolved_at = now(), resolution = 'discarded', resolved_by = 'me'
            WHERE aggregate = 'thing:2'"""
    )
    assert await service.prune(db, 30) == 0
    await owner.execute("UPDATE outbox_events SET occurred_at = now() - interval '31 days'")
    assert await service.prune(db, 30) == 3  # two events, and the proof of one of them
    left = await owner.fetch("SELECT aggregate FROM outbox_events ORDER BY 1")
    assert [row[0] for row in left] == ["thing:1", "thing:3"]


async def test_the_depth_is_told(db: Db, owner: asyncpg.Connection) -> None:
    await append(db, an_event(), an_event(ordered=True), an_event(ordered=True))
    await append(db, an_event("thing:2", delay_seconds=60))
    await owner.execute(
        "UPDATE outbox_queue SET available_at = now() - interval '9 s' WHERE seq = 1"
        " AND aggregate = 'thing:1'"
    )
    depth = await service.depth(db)
    assert depth[:3] == (4, 2, 1)
    assert 9 <= depth.oldest_due_seconds < 12


async def test_two_consumers_of_one_event_are_owed_it_each(db: Db) -> None:
    await append(db, an_event()._replace(consumers=("tests", "others")))
    (mine,) = await claim(db)
    assert await service.acknowledge(db, [mine]) == {mine.key}
    others = Consumer("others", together=note_events)
    assert len(await service.claim(db, others, 50, Holder(OWNER, 30))) == 1


async def test_an_id_is_a_token_of_one_claim_alone(db: Db) -> None:
    await append(db, an_event())
    (claimed,) = await claim(db)
    forged = claimed._replace(token=uuid4())
    assert await service.acknowledge(db, [forged]) == set()
