"""Any sequence of the engine's transitions leaves what a plain account says it must leave."""

import random
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType] - untyped
)
from tests.conftest import Stores
from tests.integration.outbox.account import TICK_SECONDS, Account, Letter
from tests.integration.outbox.bench import (
    BREAKING,
    BROKEN,
    CONSUMERS,
    HANDLED,
    MOURNED,
    Bench,
    a_thing,
    new_events,
)

from picopay.infra.ids import new_id
from picopay.outbox import dead_letters, service
from picopay.outbox.errors import LeaseLost
from picopay.outbox.model import Chosen, Claim, Holder, Key, NewEvent, Note, Reason, Resolution
from picopay.outbox.rules import Bury, DeferFor, RetryIn, text_of

# How many of the latest claims are tried again: most of them are stale by then.
REMEMBERED = 8
BUSY_TURNS = 20
RETENTION_DAYS = 30
T = TypeVar("T")

names = st.sampled_from(sorted(CONSUMERS))
ticks = st.integers(0, 2)
picks = st.integers(0, 4 * 2**REMEMBERED - 1)


@pytest.fixture
def bench(stores: Stores) -> Iterator[Bench]:
    bench = Bench(stores)
    yield bench
    bench.empty()
    bench.close()


class Outbox(RuleBasedStateMachine):
    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench, self.db = bench, bench.db
        self.account = Account()
        self.claims: list[Claim] = []
        self.effects: set[tuple[str, int]] = set()
        HANDLED.clear()
        MOURNED.clear()
        bench.empty()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        self.account.step += 1
        return self.bench.wait(work)

    def picked(self, bits: int, consumer: str | None = None) -> list[Claim]:
        """Some of the latest claims; in one draw of four, stale ones among them."""
        live = [claim for claim in self.claims if self.account.mine([claim])]
        latest = (self.claims if bits % 4 == 0 else live)[-REMEMBERED:]
        bits >>= 2
        chosen = [claim for place, claim in enumerate(latest) if bits >> place & 1]
        return [claim for claim in chosen if consumer in {None, claim.consumer}]

    @rule(events=st.lists(new_events, min_size=2, max_size=4))
    def append(self, events: list[NewEvent]) -> None:
        events = [event._replace(id=new_id()) for event in events]  # never the same one twice
        self.account.step += 1
        self.bench.append(events)
        self.account.append(events)

    @rule(consumer=names, limit=st.integers(1, 4), owner=st.sampled_from("xy"), lease=ticks)
    def claim(self, consumer: str, limit: int, owner: str, lease: int) -> None:
        seconds = lease * TICK_SECONDS
        claims = self.wait(
            service.claim(self.db, CONSUMERS[consumer], limit, Holder(owner, seconds)),
        )
        self.account.claim(consumer, limit, claims, lease)
        self.account.name_owner(claims, owner)
        self.claims += claims

    @precondition(lambda self: self.claims)
    @rule(bits=picks, lease=ticks)
    def renew(self, bits: int, lease: int) -> None:
        claims = self.picked(bits)
        mine = self.account.mine(claims)
        assert self.wait(service.renew(self.db, claims, lease * TICK_SECONDS)) == mine
        self.account.renew(mine, lease)

    @precondition(lambda self: self.claims)
    @rule(bits=picks)
    def acknowledge(self, bits: int) -> None:
        claims = self.picked(bits)
        mine = self.account.mine(claims)
        assert self.wait(service.acknowledge(self.db, claims)) == mine
        self.account.acknowledge(mine)

    @precondition(lambda self: self.claims)
    @rule(bits=picks, consumer=names, broken=st.sampled_from([False, False, True]))
    def handle_together(self, bits: int, consumer: str, broken: bool) -> None:  # noqa: FBT001 - drawn
        claims = self.picked(bits, consumer)
        keys = {claim.key for claim in claims}
        new = {claim.event.id.int for claim in claims if claim.key not in self.account.proofs}
        HANDLED.clear()
        if gone := keys - self.account.mine(claims):
            with pytest.raises(LeaseLost) as lost:
                self.wait(service.handle_together(self.db, CONSUMERS[consumer], claims))
            assert lost.value.keys == gone
            assert not HANDLED
        elif broken and new:
            with pytest.raises(ValueError, match="broken"):
                self.wait(service.handle_together(self.db, BREAKING[consumer], claims))
        else:
            self.wait(service.handle_together(self.db, CONSUMERS[consumer], claims))
            self._has_effect(consumer, new)
            self.account.proofs |= keys
            self.account.acknowledge(keys)

    def _has_effect(self, consumer: str, new: set[int]) -> None:
        assert sorted(HANDLED) == sorted(new)
        effects = {(consumer, event) for event in new}
        assert not effects & self.effects
        self.effects |= effects

    @precondition(lambda self: self.claims)
    @rule(bits=picks)
    def release(self, bits: int) -> None:
        claims = self.picked(bits)
        mine = self.account.mine(claims)
        self.wait(service.release(self.db, claims))
        self.account.postpone(mine, 0, None, counts=False)

    @precondition(lambda self: self.claims)
    @rule(
        bits=picks,
        delay=ticks,
        kind=st.sampled_from([RetryIn, DeferFor, Bury, Bury]),
        reason=st.sampled_from(Reason),
    )
    def fail(self, bits: int, delay: int, kind: type[object], reason: Reason) -> None:
        for claim in self.picked(bits):
            self._fail(claim, delay, kind, reason)

    def _fail(self, claim: Claim, delay: int, kind: type[object], reason: Reason) -> None:
        verdict = Bury(reason) if kind is Bury else kind(delay * TICK_SECONDS)  # pyright: ignore[reportCallIssue]
        assert isinstance(verdict, RetryIn | DeferFor | Bury)
        consumer = CONSUMERS[claim.consumer]
        failing = service.fail(self.db, consumer, claim, BROKEN, verdict)
        MOURNED.clear()
        if not self.account.mine([claim]):
            with pytest.raises(LeaseLost):
                self.wait(failing)
            assert MOURNED == []
            return
        self.wait(failing)
        if isinstance(verdict, Bury):
            self.account.bury(claim.key, consumer, reason, text_of(BROKEN))
            assert [claim.event.id.int] == MOURNED
        else:
            counts = isinstance(verdict, RetryIn)
            self.account.postpone([claim.key], delay, text_of(BROKEN), counts=counts)

    @rule(consumer=names, limit=st.integers(1, 2))
    def the_oldest_die(self, consumer: str, limit: int) -> None:
        """So that there is something to replay."""
        self.claim(consumer, limit, "x", 1)
        for claim in self.claims[-limit:]:
            self._fail(claim, 0, Bury, Reason.EXHAUSTED)

    @rule(passed=st.integers(1, 2))
    def time_passes(self, passed: int) -> None:
        """For leases and delays alike."""
        self.account.now += passed
        self.bench.as_owner(
            "UPDATE outbox_queue SET available_at = available_at - $1 * interval '1 s'",
            passed * TICK_SECONDS,
        )

    @precondition(lambda self: self.account.open_letters(None))
    @rule(consumer=names | st.none(), one=st.booleans(), gap=st.integers(0, 1))
    def replay(self, consumer: str | None, one: bool, gap: int) -> None:  # noqa: FBT001 - drawn
        note = Note("me", Resolution.REPLAYED, "why", 1 / TICK_SECONDS if gap else None)
        self.account.replay(self._resolved(note, consumer, one=one), gap)

    @precondition(lambda self: self.account.open_letters(None))
    @rule(consumer=names | st.none(), one=st.booleans())
    def discard(self, consumer: str | None, one: bool) -> None:  # noqa: FBT001 - drawn
        note = Note("me", Resolution.DISCARDED, "why")
        self.account.discard(self._resolved(note, consumer, one=one))

    def _resolved(self, note: Note, consumer: str | None, *, one: bool) -> list[Letter]:
        letters = self.account.open_letters(consumer)
        one = one and bool(letters)
        letters = letters[-1:] if one else letters
        ids = tuple(self.bench.id_of(letter.key) for letter in letters) if one else None
        chosen = Chosen(ids=ids, consumer=consumer)
        assert self.wait(dead_letters.resolve(self.db, chosen, note)) == len(letters)
        return letters

    @precondition(lambda self: any(row.ordered for row in self.account.owed.values()))
    @rule(name=st.sampled_from("ab"), consumer=names)
    def a_head_ends_unseen(self, name: str, consumer: str) -> None:
        """As when its deletion and the insert of its follower do not see each other."""
        heads = [
            key
            for key, row in self.account.owed.items()
            if (key.aggregate, key.consumer) == (name, consumer)
            and row.ordered
            and row.state == "ready"
        ]
        for key in heads:
            del self.account.owed[key]
            self.bench.as_owner(
                "DELETE FROM outbox_queue WHERE aggregate = $1 AND consumer = $2 AND seq = $3", *key
            )

    @rule(chore=st.sampled_from(["sweep", "look", "a", "b"]))
    def see_to(self, chore: str) -> None:
        if chore == "sweep":
            self.sweep()
        elif chore == "look":
            self.look()
        else:
            self.prune(chore)

    def sweep(self) -> None:
        assert self.wait(service.sweep(self.db)) == self.account.sweep()

    def prune(self, name: str) -> None:
        """After one aggregate's events have grown old; their proofs may be younger."""
        self.bench.as_owner(
            "UPDATE outbox_events SET occurred_at = now() - $2 * interval '1 day'"
            " WHERE aggregate = $1",
            name,
            RETENTION_DAYS + 1,
        )
        self.account.old |= {key for key in self.account.log if key[0] == name}
        assert self.wait(service.prune(self.db, RETENTION_DAYS)) == self.account.prune()

    def look(self) -> None:
        rows = self.account.owed.values()
        depth = self.wait(service.depth(self.db))
        due = [row for row in rows if row.state == "ready" and row.due[0] <= self.account.now]
        waiting = sum(row.state != "ready" for row in rows)
        assert depth[:3] == (len(rows), len(due), waiting)
        assert depth.dead_letters == len(self.account.open_letters(None))
        for name, consumer in CONSUMERS.items():
            ready = [
                row.due[0]
                for key, row in self.account.owed.items()
                if key.consumer == name and row.state == "ready"
            ]
            seconds = self.wait(service.next_due_seconds(self.db, consumer))
            found = None if seconds is None else round(seconds / TICK_SECONDS)
            assert found == (min(ready) - self.account.now if ready else None)

    @rule(seed=st.integers(0, 2**32))
    def a_busy_while(self, seed: int) -> None:
        """Hypothesis likes to repeat itself: this goes further in as many steps."""
        chance = random.Random(seed)  # noqa: S311 - not for secrets
        for _ in range(BUSY_TURNS):
            self._turn(chance)
            self.the_queue_is_as_it_must_be()
            self.of_an_ordered_key_one_at_most_goes_first()

    def _turn(self, chance: random.Random) -> None:
        consumer, either = chance.choice([*CONSUMERS]), chance.random() < 0.5
        bits, delay = chance.randrange(4 * 2**REMEMBERED), chance.randrange(2)
        consumers = (consumer,) if either else tuple(CONSUMERS)
        event = a_thing(chance.choice("ab"), consumers, delay, chance.random() < 0.7)
        verdict = chance.choice([RetryIn, DeferFor, Bury])
        turns: list[Callable[[], None]] = [
            *[lambda: self.append([event, event._replace(aggregate="a")])] * 2,
            *[lambda: self.claim(consumer, 4, "xy"[either], delay)] * 2,
            lambda: self.time_passes(1),
            lambda: self.handle_together(bits, consumer, broken=delay == 1),
            lambda: self.fail(bits, delay, verdict, Reason.REJECTED),
            lambda: self.the_oldest_die(consumer, 1),
            lambda: self.replay(consumer if either else None, one=delay == 1, gap=delay),
            lambda: self.see_to(chance.choice(["sweep", "look", "a", "b"])),
            lambda: self.renew(bits, delay) if either else self.release(bits),
            lambda: self.acknowledge(bits) if either else self.discard(consumer, one=True),
        ]
        chance.choice(turns)()

    @invariant()
    def the_queue_is_as_it_must_be(self) -> None:
        found = {
            Key(*row[:3]): (*row[3:10], round(row[10] / TICK_SECONDS) + self.account.now)
            for row in self.bench.queue()
        }
        owed = self.account.owed
        assert found == {
            key: (
                row.state, row.ordered, row.attempts, row.releases, row.token, row.owner,
                row.error, row.due[0],
            )
            for key, row in owed.items()
        }  # fmt: skip
        dues = [owed[key].due for key in found]
        assert dues == sorted(dues)

    @invariant()
    def of_an_ordered_key_one_at_most_goes_first(self) -> None:
        assert self.bench.keys_with_two_heads() == []

    @invariant()
    def proofs_and_dead_letters_are_as_they_must_be(self) -> None:
        proofs, letters = self.bench.proofs(), self.bench.letters()
        assert {Key(*row) for row in proofs} == self.account.proofs
        assert [tuple(row) for row in letters] == [
            (
                *letter.key, letter.event_id, letter.reason, letter.attempts, letter.error,
                letter.halts, letter.ordered, letter.resolution,
            )
            for letter in self.account.letters
        ]  # fmt: skip

    def teardown(self) -> None:
        """However it stands, it can be brought to an end."""
        self.discard(None, one=False)
        for _ in range(len(self.account.owed) + 1):
            self.sweep()
            self.time_passes(3)
            for name in CONSUMERS:
                self.claims.clear()
                self.claim(name, REMEMBERED, "z", 1)
                self.handle_together(4 * 2**REMEMBERED - 1, name, broken=False)
        assert self.account.owed == {}
        self.prune("a")
        self.prune("b")
        assert self.account.log == {}
        self.proofs_and_dead_letters_are_as_they_must_be()
        self.the_queue_is_as_it_must_be()


@pytest.mark.timeout(900)  # to find the shortest sequence that fails takes a while
def test_every_sequence_of_transitions_leaves_what_the_account_says(bench: Bench) -> None:
    run_state_machine_as_test(
        partial(Outbox, bench),  # pyright: ignore[reportArgumentType] - any factory will do
        settings=settings(
            max_examples=24,
            stateful_step_count=15,
            derandomize=True,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            phases=[Phase.generate],
        ),
    )
