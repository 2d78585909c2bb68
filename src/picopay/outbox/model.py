"""The outbox's nouns: events, claims, dead letters."""

from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID


class NewEvent(NamedTuple):
    """A fact to be told to each of `consumers` after the transaction that makes it true.

    `aggregate` names what it happened to (`transfer:txn_1`); of one aggregate's `ordered` events
    a consumer is given the next only when it is done with the one before. `body` is kept byte for
    byte. `delay_seconds` is counted by the database's clock.
    """

    id: UUID
    type: str
    aggregate: str
    consumers: tuple[str, ...]
    body: bytes
    delay_seconds: float = 0
    ordered: bool = False
    request_id: str | None = None  # as `tracing.origin` gives it, with the request's trace


class Event(NamedTuple):
    """A fact as the log keeps it; `seq` counts the aggregate's events.

    `traceparent` leads to the trace of the request that made it, if that was traced.
    """

    aggregate: str
    seq: int
    id: UUID
    type: str
    body: bytes
    request_id: str | None
    occurred_at: datetime
    traceparent: str | None = None


class Holder(NamedTuple):
    """Who claims, and for how long at a time."""

    owner: str
    lease_seconds: float


# However long ago something came due.
ALL_TIME_SECONDS: Final = 6e10


class Claim(NamedTuple):
    """What one consumer owes to one event, and the right to do it until the lease ends.

    Every later write names `token`: whoever has lost the lease changes nothing. `attempts` counts
    this one; it was claimed `late_seconds` after it was due. `error` is an earlier attempt's. With
    `left_others` the same look found more that is due, and left it for the next. One that is
    `silent` was claimed before, and nobody has told what became of that attempt.
    """

    event: Event
    consumer: str
    token: UUID
    attempts: int
    late_seconds: float
    error: str | None = None
    left_others: bool = False
    silent: bool = False

    @property
    def key(self) -> "Key":
        return Key(self.event.aggregate, self.consumer, self.event.seq)


class Key(NamedTuple):
    """Which row of the queue a claim is about."""

    aggregate: str
    consumer: str
    seq: int


class Reason(StrEnum):
    """Why an event was given up for a consumer."""

    EXHAUSTED = "exhausted"  # every attempt failed
    REJECTED = "rejected"  # a permanent error: another attempt would fail likewise
    CRASHED = "crashed"  # its attempts ended without a word, as when it kills its process


class Resolution(StrEnum):
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class DeadLetter(NamedTuple):
    """An event that was given up, kept for a person."""

    id: UUID
    aggregate: str
    seq: int
    consumer: str
    event_id: UUID
    type: str
    reason: str
    attempts: int
    error: str
    died_at: datetime
    halts: bool
    ordered: bool
    resolved_at: datetime | None
    resolution: str | None
    resolved_by: str | None
    note: str | None


class Chosen(NamedTuple):
    """Which dead letters: all that is given must hold. Nothing given chooses all open ones."""

    ids: tuple[UUID, ...] | None = None
    consumer: str | None = None
    type: str | None = None
    reason: str | None = None
    died_after: datetime | None = None
    died_before: datetime | None = None


class Note(NamedTuple):
    """Who decided what, and why; replayed at which rate, if at any."""

    actor: str
    resolution: Resolution
    reason: str
    per_second: float | None = None


class Depth(NamedTuple):
    """The queue at one moment."""

    pending: int
    due: int
    blocked: int
    oldest_due_seconds: float
    dead_letters: int
