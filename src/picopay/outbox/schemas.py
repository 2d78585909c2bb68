"""What dead letters look like on the wire."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from picopay.infra.routing import Page
from picopay.outbox.model import Chosen, DeadLetter, Reason

IDS_MAX = 1000

_Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


# Beyond these a moment of another zone is none any more in UTC.
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_Moment = Annotated[
    AwareDatetime, Field(ge=_EARLIEST, le=_LATEST, description="RFC 3339, exclusive.")
]


class DeadLetterQuery(Page):
    """Which to list: all that is given must hold."""

    consumer: _Text | None = None
    type: _Text | None = None
    reason: Reason | None = None
    resolved: bool = Field(default=False, description="Also those that were replayed or discarded.")

    def to_chosen(self) -> Chosen:
        return Chosen(None, self.consumer, self.type, self.reason)


class ResolveIn(BaseModel):
    """Either `ids`, or a filter, or `all`; and always why."""

    ids: list[UUID] | None = Field(None, min_length=1, max_length=IDS_MAX)
    all: bool = Field(
        default=False, description="Every open one; needed when nothing else is given."
    )
    consumer: _Text | None = None
    type: _Text | None = None
    reason: Reason | None = None
    died_after: _Moment | None = None
    died_before: _Moment | None = None
    note: _Text = Field(description="Why; kept with each letter and in the audit.")
    dry_run: bool = Field(default=False, description="Only count.")

    @model_validator(mode="after")
    def _meant(self) -> "ResolveIn":
        if self.all == any(value is not None for value in self.to_chosen()):
            raise ValueError("say which: ids, a filter, or all")
        return self

    def to_chosen(self) -> Chosen:
        ids = None if self.ids is None else tuple(self.ids)
        return Chosen(ids, self.consumer, self.type, self.reason, self.died_after, self.died_before)


class ReplayIn(ResolveIn):
    per_second: float | None = Field(
        None, ge=0.001, le=10_000, description="Replayed one after the other, at this rate."
    )


@dataclass(frozen=True, slots=True)
class ResolvedOut:
    matched: int
    resolved: int
    dry_run: bool


@dataclass(frozen=True, slots=True)
class DeadLetterOut:
    id: UUID
    consumer: str
    type: str
    event_id: UUID
    aggregate: str
    reason: str
    attempts: int
    error: str
    died_at: datetime
    halts: bool
    resolved_at: datetime | None
    resolution: str | None
    resolved_by: str | None
    note: str | None

    @classmethod
    def of(cls, letter: DeadLetter) -> "DeadLetterOut":
        return cls(
            letter.id, letter.consumer, letter.type, letter.event_id, letter.aggregate,
            letter.reason, letter.attempts, letter.error, letter.died_at, letter.halts,
            letter.resolved_at, letter.resolution, letter.resolved_by, letter.note,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeadLetterFullOut:
    letter: DeadLetterOut
    body: object

    @classmethod
    def of(cls, letter: DeadLetter, body: bytes) -> "DeadLetterFullOut":
        """The body as JSON if it is that, else as text with what is not text escaped."""
        try:
            shown: object = json.loads(body, parse_float=str)
        except ValueError:
            shown = body.decode(errors="backslashreplace")
        return cls(DeadLetterOut.of(letter), shown)


@dataclass(frozen=True, slots=True)
class DeadLetterPageOut:
    data: list[DeadLetterOut]
    has_more: bool
    next_cursor: str | None
