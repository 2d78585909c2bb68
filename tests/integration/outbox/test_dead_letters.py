"""Dead letters on a real database: resolved once, by somebody, for a reason."""

import asyncio
from datetime import UTC, datetime, timedelta
from unittest.mock import ANY

import asyncpg
import pytest
from tests.integration.outbox.workers import CONSUMER, HALTING, SEEN, an_event, append, claim

from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.outbox import dead_letters, service
from picopay.outbox.consumer import Consumer
from picopay.outbox.errors import DeadLetterNotFound
from picopay.outbox.model import Chosen, Note, Reason, Resolution
from picopay.outbox.rules import Bury

REPLAY = Note("test", Resolution.REPLAYED, "try again")
DISCARD = Note("test", Resolution.DISCARDED, "never mind")


@pytest.fixture(autouse=True)
def _forget() -> None:
    SEEN.clear()


async def bury_all(db: Db, consumer: Consumer = CONSUMER) -> None:
    for claimed in await claim(db):
        await service.fail(db, consumer, claimed, ValueError("no"), Bury(Reason.EXHAUSTED))


async def a_dead_letter(db: Db, aggregate: str = "thing:1") -> None:
    await append(db, an_event(aggregate))
    await bury_all(db)


async def open_ones(db: Db) -> list[str]:
    found = await dead_letters.page(db, Chosen(), None, 100, resolved=False)
    return [letter.aggregate for letter in found]


async def test_a_replayed_event_keeps_its_identity_and_is_handled(
    db: Db, owner: asyncpg.Connection
) -> None:
    await a_dead_letter(db)
    (letter,) = await dead_letters.page(db, Chosen(), None, 10, resolved=False)
    assert await dead_letters.resolve(db, Chosen(ids=(letter.id,)), REPLAY) == 1
    (again,) = await claim(db)
    assert (again.event.id, again.attempts) == (letter.event_id, 1)
    await service.handle_together(db, CONSUMER, [again])
    assert SEEN == [1]
    shown, body = await dead_letters.show(db, letter.id)
    assert (shown.resolution, shown.resolved_by, shown.note) == ("replayed", "test", "try again")
    assert body == b"{}"
    audit = await owner.fetchrow("SELECT actor, action, letters, reason FROM dead_letter_audits")
    assert tuple(audit or ()) == ("test", "replayed", 1, "try again")


async def test_an_effect_that_was_there_before_is_not_repeated(
    db: Db, owner: asyncpg.Connection
) -> None:
    """A letter whose effect was made all the same, as when a person has mended it by hand."""
    await a_dead_letter(db)
    await owner.execute("INSERT INTO outbox_consumed VALUES ('thing:1', 'tests', 1)")
    await dead_letters.resolve(db, Chosen(), REPLAY)
    await service.handle_together(db, CONSUMER, await claim(db))
    assert SEEN == []


async def test_a_letter_is_resolved_once_however_many_try(
    db: Db, owner: asyncpg.Connection
) -> None:
    for number in range(20):
        await a_dead_letter(db, f"thing:{number}")
    done = await asyncio.gather(*(dead_letters.resolve(db, Chosen(), REPLAY) for _ in range(5)))
    assert sum(done) == 20
    assert await owner.fetchval("SELECT count(*) FROM outbox_queue") == 20
    assert await dead_letters.resolve(db, Chosen(), DISCARD) == 0
    assert await open_ones(db) == []


async def test_letters_are_chosen_by_what_they_are(db: Db, owner: asyncpg.Connection) -> None:
    for number in range(3):
        await a_dead_letter(db, f"thing:{number}")
    await owner.execute("UPDATE dead_letters SET reason = 'rejected' WHERE aggregate = 'thing:1'")
    long_ago = datetime.now(UTC) - timedelta(days=9)
    await owner.execute(
        "UPDATE dead_letters SET died_at = $1 WHERE aggregate = 'thing:2'", long_ago
    )
    day = timedelta(days=1)
    for chosen, wanted in (
        (Chosen(), 3),
        (Chosen(consumer="tests"), 3),
        (Chosen(consumer="others"), 0),
        (Chosen(type="thing.happened", reason="rejected"), 1),
        (Chosen(died_before=long_ago + day), 1),
        (Chosen(died_after=long_ago + day), 2),
        (Chosen(ids=(new_id(),)), 0),
    ):
        assert await dead_letters.count(db, chosen) == wanted
    assert await dead_letters.resolve(db, Chosen(reason="rejected"), DISCARD) == 1
    assert sorted(await open_ones(db)) == ["thing:0", "thing:2"]


async def test_replayed_at_a_rate_they_come_due_one_after_the_other(
    db: Db, owner: asyncpg.Connection
) -> None:
    for number in range(4):
        await a_dead_letter(db, f"thing:{number}")
    await dead_letters.resolve(db, Chosen(), REPLAY._replace(per_second=0.5))
    due = await owner.fetch("SELECT available_at FROM outbox_queue ORDER BY aggregate")
    gaps = [(row[0] - due[0][0]).total_seconds() for row in due]
    assert gaps == pytest.approx([0, 2, 4, 6], abs=0.01)


@pytest.mark.parametrize("note", [REPLAY, DISCARD])
async def test_a_halted_key_goes_on_when_its_head_is_resolved(db: Db, note: Note) -> None:
    await append(db, an_event(ordered=True), an_event(ordered=True))
    (head,) = await claim(db)
    await service.fail(db, HALTING, head, ValueError("no"), Bury(Reason.EXHAUSTED))
    assert await claim(db) == []
    await dead_letters.resolve(db, Chosen(), note)
    expected = [1, 2] if note is REPLAY else [2]
    for seq in expected:
        claims = await claim(db)
        assert [c.event.seq for c in claims] == [seq]
        await service.handle_together(db, CONSUMER, claims)
    assert expected == SEEN


async def test_ordered_events_replayed_together_go_in_their_order(db: Db) -> None:
    for _ in range(3):
        await append(db, an_event(ordered=True))
        await bury_all(db)
    await append(db, an_event(ordered=True))
    (living,) = await claim(db)
    await dead_letters.resolve(db, Chosen(), REPLAY)
    assert await claim(db) == []
    await service.handle_together(db, CONSUMER, [living])
    for seq in (1, 2, 3):
        claims = await claim(db)
        assert [c.event.seq for c in claims] == [seq]
        await service.handle_together(db, CONSUMER, claims)
    assert SEEN == [4, 1, 2, 3]


async def test_a_letter_whose_event_is_pruned_never_shows_a_later_one(
    db: Db, owner: asyncpg.Connection
) -> None:
    await a_dead_letter(db)
    (letter,) = await dead_letters.page(db, Chosen(), None, 10, resolved=False)
    await dead_letters.resolve(db, Chosen(), DISCARD)
    await owner.execute("UPDATE outbox_events SET occurred_at = now() - interval '31 days'")
    assert await service.prune(db, 30) == 1
    await append(db, an_event())
    assert await dead_letters.show(db, letter.id) == (
        letter._replace(resolved_at=ANY, resolution="discarded", resolved_by="test", note=ANY),
        b"",
    )


async def test_an_unknown_letter_is_not_found(db: Db) -> None:
    with pytest.raises(DeadLetterNotFound):
        await dead_letters.show(db, new_id())
