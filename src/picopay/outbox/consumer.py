"""Who handles events, and how."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from picopay.infra import tracing
from picopay.infra.tx import Tx
from picopay.outbox.model import Event

DEADLINE_SECONDS: Final = 20
BATCH_MAX: Final = 50
BATCHES_AT_A_TIME: Final = 2


class WhenDead(StrEnum):
    """What becomes of an aggregate's later events when the first of them is a dead letter."""

    SKIP = "skip"  # they go on without it
    HALT = "halt"  # they wait until a person has replayed or discarded it


Together = Callable[[Tx, Sequence[Event]], Awaitable[None]]
Alone = Callable[[Event], Awaitable[None]]
Told = Callable[[Sequence[Event]], None]


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who handles events. Either `together`, or `alone`, never both.

    `together` touches the database only: effect, proof and acknowledgement of up to `batch_max`
    events are one transaction of the relay's. `alone` may call out: at least once, so it must
    be repeatable. `on_done` is told what was handled together once that is committed; `on_dead`
    joins the transaction that buries an event, `on_buried` is told of it afterwards.
    """

    name: str
    together: Together | None = None
    alone: Alone | None = None
    on_done: Told | None = None
    on_dead: Together | None = None
    on_buried: Told | None = None
    when_dead: WhenDead = WhenDead.SKIP
    batch_max: int = BATCH_MAX
    concurrency: int = BATCHES_AT_A_TIME
    deadline_seconds: float = DEADLINE_SECONDS

    def __post_init__(self) -> None:
        assert (self.together is None) != (self.alone is None), self.name


def traced(consumer: Consumer, events: Sequence[Event]) -> AbstractContextManager[None]:
    """What it does with them, in the traces of the requests that made them."""
    return tracing.handling(consumer.name, [(event.type, event.traceparent) for event in events])


async def call(consumer: Consumer, event: Event) -> None:
    """For a consumer that handles events alone. Raises whatever it does."""
    assert consumer.alone is not None
    with traced(consumer, [event]):
        await consumer.alone(event)
