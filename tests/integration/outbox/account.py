"""What the outbox must hold: a plain account in memory, kept beside the real one.

Time is counted in ticks, far longer than a test takes. A due time is a tick and a step: of two
rows due in the same tick the one that was made due by an earlier step comes first.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from picopay.outbox.consumer import Consumer, WhenDead
from picopay.outbox.model import Claim, Key, NewEvent, Reason, Resolution

TICK_SECONDS = 100
Due = tuple[int, int]


@dataclass
class Owed:
    """One row of the queue."""

    event_id: UUID
    ordered: bool
    state: str
    due: Due
    attempts: int = 0
    releases: int = 0
    token: UUID | None = None
    owner: str | None = None
    error: str | None = None


@dataclass
class Letter:
    key: Key
    event_id: UUID
    reason: Reason
    attempts: int
    error: str
    halts: bool
    ordered: bool
    resolution: Resolution | None = None


@dataclass
class Account:
    now: int = 0
    step: int = 0
    owed: dict[Key, Owed] = field(default_factory=dict[Key, Owed])
    log: dict[tuple[str, int], NewEvent] = field(default_factory=dict[tuple[str, int], NewEvent])
    old: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    proofs: set[Key] = field(default_factory=set[Key])
    letters: list[Letter] = field(default_factory=list[Letter])

    def at(self, ticks: int) -> Due:
        return self.now + ticks, self.step

    def append(self, events: Iterable[NewEvent]) -> None:
        for event in events:
            seq = 1 + max((n for name, n in self.log if name == event.aggregate), default=0)
            self.log[event.aggregate, seq] = event
            for consumer in event.consumers:
                key = Key(event.aggregate, consumer, seq)
                waits = event.ordered and bool(self._ordered(key))
                due = self.at(int(event.delay_seconds) // TICK_SECONDS)
                state = "blocked" if waits else "ready"
                self.owed[key] = Owed(event.id, event.ordered, state, due)

    def claimable(self, consumer: str) -> list[Key]:
        """Oldest first."""
        due = [
            key
            for key, row in self.owed.items()
            if key.consumer == consumer and row.state == "ready" and row.due[0] <= self.now
        ]
        return sorted(due, key=lambda key: self.owed[key].due)

    def claim(self, consumer: str, limit: int, claims: Sequence[Claim], lease: int) -> None:
        """These must be the oldest that are due; of rows equally old, any."""
        keys = {claim.key for claim in claims}
        assert len(keys) == len(claims)
        self._check_choice(self.claimable(consumer), keys, limit)
        assert list(claims) == sorted(claims, key=lambda claim: claim.event.id)
        for claim in claims:
            row = self.owed[claim.key]
            assert round(claim.late_seconds / TICK_SECONDS) == self.now - row.due[0]
            row.attempts, row.token, row.due = row.attempts + 1, claim.token, self.at(lease)
            assert (claim.attempts, claim.event.id) == (row.attempts, row.event_id)
            event = self.log[claim.event.aggregate, claim.event.seq]
            assert (claim.event.id, claim.event.body) == (event.id, event.body)

    def _check_choice(self, wanted: Sequence[Key], keys: set[Key], limit: int) -> None:
        """One that was silent is claimed alone, when its turn comes; others pass it by."""
        assert keys <= set(wanted)
        if not wanted:
            return
        first = {key for key in wanted if self.owed[key].due == self.owed[wanted[0]].due}
        assert keys & first, "the turn was another's"
        silent = {key for key in wanted if self.owed[key].token is not None}
        if keys & silent:
            assert len(keys) == 1
            return
        looked_at = wanted[:limit]
        last = self.owed[looked_at[-1]].due
        surely = {key for key in looked_at if self.owed[key].due < last} - silent
        assert surely <= keys
        equal = {key for key in wanted if self.owed[key].due == last}
        places = sum(self.owed[key].due == last for key in looked_at)
        few, many = places - len(equal & silent), min(places, len(equal - silent))
        assert few <= len(keys - surely) <= many
        assert keys - surely <= equal

    def name_owner(self, claims: Iterable[Claim], owner: str) -> None:
        for claim in claims:
            self.owed[claim.key].owner = owner

    def mine(self, claims: Iterable[Claim]) -> set[Key]:
        """Those whose token still counts."""
        return {
            claim.key
            for claim in claims
            if claim.key in self.owed and self.owed[claim.key].token == claim.token
        }

    def acknowledge(self, keys: Collection[Key]) -> None:
        done = [(key, self.owed.pop(key)) for key in keys]
        for key, row in done:
            if row.ordered:
                self.let_go(key)

    def renew(self, keys: Collection[Key], lease: int) -> None:
        for key in keys:
            self.owed[key].due = self.at(lease)

    def postpone(
        self, keys: Collection[Key], ticks: int, error: str | None, *, counts: bool
    ) -> None:
        for key in keys:
            row = self.owed[key]
            row.due, row.token, row.owner = self.at(ticks), None, None
            row.error = error or row.error
            if not counts:
                row.attempts, row.releases = row.attempts - 1, row.releases + 1

    def bury(self, key: Key, consumer: Consumer, reason: Reason, error: str) -> None:
        row = self.owed[key]
        halts = row.ordered and consumer.when_dead is WhenDead.HALT
        self.letters.append(
            Letter(key, row.event_id, reason, row.attempts, error, halts, row.ordered)
        )
        if halts:
            row.state, row.token, row.owner, row.error = "halted", None, None, error
        else:
            self.acknowledge([key])

    def open_letters(self, consumer: str | None) -> list[Letter]:
        """Oldest first."""
        return [
            letter
            for letter in self.letters
            if letter.resolution is None and consumer in {None, letter.key.consumer}
        ]

    def replay(self, letters: Sequence[Letter], gap: int) -> None:
        """Of an ordered key only one comes back claimable, and only if none is already."""
        due = {id(letter): self.at(number * gap) for number, letter in enumerate(letters)}
        for letter in sorted(letters, key=lambda letter: letter.key.seq):
            letter.resolution = Resolution.REPLAYED
            self.owed.pop(letter.key, None)
            heads = [row for row in self._ordered(letter.key).values() if row.state != "blocked"]
            state = "blocked" if letter.ordered and heads else "ready"
            self.owed[letter.key] = Owed(letter.event_id, letter.ordered, state, due[id(letter)])

    def discard(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            letter.resolution = Resolution.DISCARDED
            if letter.halts:
                self.acknowledge([letter.key])

    def let_go(self, key: Key) -> bool:
        """The first of those that wait, if nothing goes before them any more."""
        rows = self._ordered(key)
        if not rows or any(row.state != "blocked" for row in rows.values()):
            return False
        first = rows[min(rows)]
        first.state, first.due = "ready", max(first.due, self.at(0))
        return True

    def sweep(self) -> int:
        keys = {(key.aggregate, key.consumer): key for key in self.owed}
        return sum(self.let_go(key) for key in keys.values())

    def prune(self) -> int:
        """A proof goes with its event."""
        needed = {(key.aggregate, key.seq) for key in self.owed}
        needed |= {(lt.key.aggregate, lt.key.seq) for lt in self.open_letters(None)}
        gone = self.old - needed
        proofs = {key for key in self.proofs if (key.aggregate, key.seq) in gone}
        self.log = {name: event for name, event in self.log.items() if name not in gone}
        self.old -= gone
        self.proofs -= proofs
        return len(gone) + len(proofs)

    def _ordered(self, key: Key) -> dict[int, Owed]:
        """The ordered rows of the key, by number."""
        return {
            other.seq: row
            for other, row in self.owed.items()
            if row.ordered and (other.aggregate, other.consumer) == (key.aggregate, key.consumer)
        }
