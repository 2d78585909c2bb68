"""The relay on a real database: whatever a handler does, its neighbours go on."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from time import monotonic
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY
from tests.integration.outbox.workers import an_event, append, drained, eventually, working

from picopay.infra.db import Db, OutcomeUnknown
from picopay.infra.ids import new_id
from picopay.infra.tx import Tx
from picopay.kernel.errors import Overloaded, Refused
from picopay.ledger.errors import AccountLimit
from picopay.outbox import service
from picopay.outbox.bell import Bell
from picopay.outbox.consumer import Consumer
from picopay.outbox.errors import NotYet, Permanent
from picopay.outbox.model import Event
from picopay.outbox.pace import LOCKED_PAUSE_SECONDS
from picopay.outbox.relay import LATE_SECONDS_MAX
from picopay.outbox.rules import Policy


class Seen:
    """A handler that remembers, and fails for some aggregates as it is told."""

    def __init__(self, **failures: BaseException) -> None:
        self.events = Counter[str]()
        self.failures = failures

    async def together(self, _tx: Tx, events: Sequence[Event]) -> None:
        for event in events:
            await self.alone(event)

    async def alone(self, event: Event) -> None:
        self.events[event.aggregate] += 1
        if (error := self.failures.get(event.aggregate)) is not None:
            raise error


async def letters(owner: asyncpg.Connection) -> dict[str, tuple[str, int]]:
    rows = await owner.fetch("SELECT aggregate, reason, attempts FROM dead_letters")
    return {row[0]: (row[1], row[2]) for row in rows}


@pytest.mark.parametrize("kind", ["together", "alone"])
async def test_everything_is_handled_once_by_workers_side_by_side(
    db: Db, owner: asyncpg.Connection, kind: str
) -> None:
    seen = Seen()
    await append(db, *(an_event(f"a{number}") for number in range(300)))
    consumer = Consumer("tests", **{kind: getattr(seen, kind)})
    async with working(db, consumer), working(db, consumer), working(db, consumer):
        await drained(owner)
    assert seen.events == Counter({f"a{number}": 1 for number in range(300)})


@pytest.mark.parametrize("kind", ["together", "alone"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_who_raises_whatever_it_is_fails_alone_and_ends_as_a_dead_letter(
    db: Db, owner: asyncpg.Connection, kind: str, error: BaseException
) -> None:
    seen = Seen(bad=error)
    await append(db, *(an_event(f"a{number}") for number in range(20)), an_event("bad"))
    async with working(db, Consumer("tests", **{kind: getattr(seen, kind)})):
        await drained(owner)
    assert await letters(owner) == {"bad": ("exhausted", 3)}
    proofs = await owner.fetchval("SELECT count(*) FROM outbox_consumed")
    assert proofs == (20 if kind == "together" else 0)
    assert all(seen.events[f"a{number}"] >= 1 for number in range(20))


async def test_a_permanent_error_is_not_tried_again(db: Db, owner: asyncpg.Connection) -> None:
    seen = Seen(bad=Permanent("never"))
    await append(db, an_event("bad"))
    async with working(db, Consumer("tests", alone=seen.alone)):
        await drained(owner)
    assert seen.events["bad"] == 1
    assert await letters(owner) == {"bad": ("rejected", 1)}


@pytest.mark.parametrize(
    ("refused", "wanted"),
    [
        (Overloaded("held"), ("exhausted", 3)),
        (OutcomeUnknown("thing", new_id()), ("exhausted", 3)),
        (AccountLimit(), ("rejected", 1)),
    ],
)
async def test_a_refusal_that_may_pass_is_tried_again_and_any_other_is_not(
    db: Db, owner: asyncpg.Connection, refused: Refused, wanted: tuple[str, int]
) -> None:
    await append(db, an_event("bad"))
    async with working(db, Consumer("tests", together=Seen(bad=refused).together)):
        await drained(owner)
    assert await letters(owner) == {"bad": wanted}


async def test_due_events_that_are_locked_are_not_asked_for_in_a_hurry(
    db: Db, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, asked = Seen(), 0
    claim = service.claim

    async def counted(*arguments: Any) -> Any:  # noqa: ANN401 - whatever it is given
        nonlocal asked
        asked += 1
        return await claim(*arguments)

    monkeypatch.setattr(service, "claim", counted)
    await append(db, an_event("a"))
    async with working(db, Consumer("tests", together=seen.together)):
        await drained(owner)
        async with owner.transaction():
            await append(db, an_event("b", delay_seconds=0.2))
            await owner.execute("SELECT 1 FROM outbox_queue FOR UPDATE")
            await asyncio.sleep(0.3)
            asked = 0
            await asyncio.sleep(1)
            assert asked <= 1 / LOCKED_PAUSE_SECONDS
        await drained(owner)


async def test_what_is_too_early_comes_back_and_does_not_count(
    db: Db, owner: asyncpg.Connection
) -> None:
    seen = Seen(early=NotYet(0.05, "too early"))
    await append(db, an_event("early"))
    async with working(db, Consumer("tests", alone=seen.alone)):
        await eventually(lambda: seen.events["early"] > 5)
        seen.failures.clear()
        await drained(owner)
    assert await letters(owner) == {}


async def test_a_handler_that_hangs_is_stopped_and_delays_no_other(
    db: Db, owner: asyncpg.Connection
) -> None:
    done: list[str] = []

    async def handle(event: Event) -> None:
        if event.aggregate == "hangs":
            await asyncio.sleep(3600)
        done.append(event.aggregate)

    await append(db, an_event("hangs"), *(an_event(f"a{number}") for number in range(20)))
    consumer = Consumer("tests", alone=handle, concurrency=4, deadline_seconds=0.3)
    started = monotonic()
    async with working(db, consumer):
        await eventually(lambda: len(done) == 20)
        assert monotonic() - started < 2
        await drained(owner)
    assert await letters(owner) == {"hangs": ("exhausted", 3)}


async def test_what_was_handled_in_time_is_acknowledged_after_its_deadline(
    db: Db, owner: asyncpg.Connection
) -> None:
    """Meanwhile its lease is neither renewed nor told as lost."""
    seen, reached, before = Seen(), asyncio.Event(), failed_attempts()

    async def handle(event: Event) -> None:
        await seen.alone(event)
        reached.set()
        await asyncio.sleep(0.1)

    await append(db, an_event("a"))
    consumer = Consumer("tests", alone=handle, deadline_seconds=0.3)
    async with working(db, consumer, lease_seconds=1.2):
        await reached.wait()
        async with owner.transaction():
            await owner.execute("SELECT FROM outbox_queue FOR UPDATE")
            await asyncio.sleep(0.6)
        await drained(owner)
    assert seen.events["a"] == 1
    assert failed_attempts() == before
    assert await letters(owner) == {}


def failed_attempts() -> float:
    labels = [{"consumer": "tests", "outcome": outcome} for outcome in ("retried", "buried")]
    told = [REGISTRY.get_sample_value("outbox_attempts_total", each) or 0 for each in labels]
    return sum(told) + (REGISTRY.get_sample_value("outbox_leases_lost_total") or 0)


async def test_a_consumer_that_hangs_delays_no_other_consumer(
    db: Db, owner: asyncpg.Connection
) -> None:
    seen = Seen()

    async def hang(_event: Event) -> None:
        await asyncio.sleep(3600)

    await append(db, *(an_event(f"h{n}")._replace(consumers=("hangs",)) for n in range(10)))
    await append(db, an_event("a"))
    hanging = Consumer("hangs", alone=hang, concurrency=2, deadline_seconds=2)
    async with working(db, hanging, Consumer("tests", together=seen.together)):
        await eventually(lambda: seen.events["a"] == 1, seconds=1.5)
    assert await owner.fetchval("SELECT count(*) FROM outbox_queue WHERE consumer = 'hangs'") == 10


async def test_a_long_handler_keeps_its_lease(db: Db, owner: asyncpg.Connection) -> None:
    seen = Seen()

    async def slow(event: Event) -> None:
        await seen.alone(event)
        await asyncio.sleep(3)

    await append(db, an_event("slow"))
    consumer = Consumer("tests", alone=slow)
    async with working(db, consumer, lease_seconds=1), working(db, consumer, lease_seconds=1):
        await drained(owner)
    assert seen.events["slow"] == 1


async def test_a_row_whose_attempts_all_ended_in_silence_is_buried_unseen(
    db: Db, owner: asyncpg.Connection
) -> None:
    seen = Seen()
    await append(db, an_event("killer"))
    await owner.execute("UPDATE outbox_queue SET attempts = 3")
    async with working(db, Consumer("tests", together=seen.together)):
        await drained(owner)
    assert seen.events["killer"] == 0
    assert (await letters(owner))["killer"][0] == "crashed"


async def test_what_a_crash_left_behind_is_handled_at_once_and_what_is_behind_it(
    db: Db, owner: asyncpg.Connection
) -> None:
    seen = Seen()
    await append(db, *(an_event(f"a{number}") for number in range(100)))
    await owner.execute(
        """UPDATE outbox_queue SET attempts = 1, lease_token = gen_random_uuid(),
                  available_at = now() - interval '10 s'"""
    )
    await append(db, *(an_event(f"new{number}") for number in range(50)))
    async with working(db, Consumer("tests", together=seen.together)):
        await drained(owner, seconds=5)
    assert len(seen.events) == 150


@pytest.mark.parametrize("kind", ["together", "alone"])
async def test_what_is_silent_among_others_is_handled_right_after_them(
    db: Db, owner: asyncpg.Connection, kind: str
) -> None:
    seen = Seen()
    await append(db, *(an_event(f"a{number}") for number in range(10)))
    await owner.execute(
        """UPDATE outbox_queue SET available_at = now() - interval '10 s',
                  lease_token = CASE WHEN aggregate > 'a4' THEN gen_random_uuid() END"""
    )
    async with working(db, Consumer("tests", **{kind: getattr(seen, kind)})):
        await drained(owner, seconds=1)


async def test_what_came_due_half_a_century_ago_is_handled(
    db: Db, owner: asyncpg.Connection
) -> None:
    seen = Seen()
    await append(db, an_event("old"), an_event("older"))
    await owner.execute("UPDATE outbox_queue SET available_at = '1970-01-01Z'")
    async with working(db, Consumer("tests", together=seen.together)):
        await drained(owner)


async def test_a_spent_row_that_has_an_error_keeps_it_and_is_exhausted(
    db: Db, owner: asyncpg.Connection
) -> None:
    seen = Seen()
    await append(db, an_event("tired"))
    await owner.execute("UPDATE outbox_queue SET attempts = 32767, error = 'ValueError: no'")
    async with working(db, Consumer("tests", together=seen.together)):
        await drained(owner)
    assert seen.events["tired"] == 0
    (letter,) = await owner.fetch("SELECT reason, attempts, error FROM dead_letters")
    assert tuple(letter) == ("exhausted", 32767, "ValueError: no")


async def test_the_bell_wakes_a_lane_that_rests(db: Db, owner: asyncpg.Connection) -> None:
    seen, bell = Seen(), Bell()
    async with working(db, Consumer("tests", together=seen.together), bell=bell):
        await asyncio.sleep(2)  # by now it polls once a second
        waits: list[float] = []
        for number in range(5):
            await append(db, an_event(f"a{number}"))
            started = monotonic()
            bell.ring("tests")
            await eventually(lambda n=number: seen.events[f"a{n}"] == 1)
            waits.append(monotonic() - started)
            if waits[-1] < 0.1:
                break
            await asyncio.sleep(0.7)
    assert min(waits) < 0.1
    assert await owner.fetchval("SELECT count(*) FROM outbox_queue") == 0


async def test_a_stopped_worker_gives_back_what_it_did_not_finish(
    db: Db, owner: asyncpg.Connection
) -> None:
    async def hang(_event: Event) -> None:
        await asyncio.sleep(3600)

    await append(db, an_event("a"))
    async with working(db, Consumer("tests", alone=hang)) as relay:
        await asyncio.sleep(0.5)
        started = monotonic()
        await relay.stop(0.2)
        assert monotonic() - started < 2
    row = await owner.fetchrow(
        "SELECT attempts, lease_token, available_at <= now() FROM outbox_queue"
    )
    assert tuple(row or ()) == (0, None, True)


@pytest.mark.parametrize("hanging", ["claim", "release"])
async def test_a_stop_takes_no_longer_than_its_grace_and_a_little(
    db: Db, monkeypatch: pytest.MonkeyPatch, hanging: str
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.sleep(3600)

    await append(db, an_event("a"))
    async with working(db, Consumer("tests", alone=hang)) as relay:
        await asyncio.sleep(0.3)
        monkeypatch.setattr(service, hanging, hang)
        await append(db, an_event("b"))
        await asyncio.sleep(1.2)  # by now it looks again
        async with asyncio.timeout(0.3 + 2 * LATE_SECONDS_MAX):
            await relay.stop(0.3)
        monkeypatch.undo()  # or the stop at the end would wait once more


async def test_delays_double_and_are_minimums(db: Db, owner: asyncpg.Connection) -> None:
    times: list[float] = []

    async def fail(_event: Event) -> None:
        times.append(monotonic())
        raise ValueError("no")

    await append(db, an_event("a"))
    policy = Policy(attempts_max=4, base_delay_seconds=0.2, jitter=0)
    async with working(db, Consumer("tests", alone=fail), policy=policy):
        await drained(owner)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(gaps) == 3
    for gap, wanted in zip(gaps, (0.2, 0.4, 0.8), strict=True):
        assert wanted <= gap < wanted + 0.5


async def test_ordered_events_are_handled_in_order_by_workers_side_by_side(
    db: Db, owner: asyncpg.Connection
) -> None:
    handled: dict[str, list[int]] = {}

    async def handle(event: Event) -> None:
        handled.setdefault(event.aggregate, []).append(event.seq)
        await asyncio.sleep(0.001)

    for _ in range(20):
        await append(db, *(an_event(f"a{number}", ordered=True) for number in range(10)))
    consumer = Consumer("tests", alone=handle, concurrency=8)
    async with working(db, consumer), working(db, consumer):
        await drained(owner, seconds=30)
    assert handled == {f"a{number}": list(range(1, 21)) for number in range(10)}
