"""Group commit: while one batch commits, those that arrive form the next."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from time import monotonic
from typing import Final, Generic, NamedTuple, TypeVar

from opentelemetry.trace import Span

from picopay.infra import tracing
from picopay.infra.db import CommitInDoubt
from picopay.infra.logs import log
from picopay.infra.shedding import Pace
from picopay.kernel.errors import Overloaded, Refused

C = TypeVar("C")
R = TypeVar("R")

BATCH_MAX: Final = 256
QUEUE_MAX: Final = 10_000  # beside what `Pace` allows


class _Waiting(NamedTuple, Generic[C, R]):
    command: C
    result: asyncio.Future[R]
    span: Span | None


class Gatherer(Generic[C, R]):
    """`commit` writes a batch in one transaction; its results are in the order of the commands.

    At low load a batch is one command, and nobody waits for a timer.
    """

    def __init__(self, what: str, commit: Callable[[Sequence[C]], Awaitable[Sequence[R]]]) -> None:
        self._what = what
        self._commit = commit
        self._queue: deque[_Waiting[C, R]] = deque()
        self._pace = Pace(BATCH_MAX)
        self._closing = False
        self._work: asyncio.Task[None] | None = None

    def full(self, _inside: int = 0) -> bool:
        """Whoever waits for a lock is inside too, and in nobody's way."""
        return len(self._queue) >= min(QUEUE_MAX, self._pace.room)

    async def submit(self, command: C) -> R:
        """Committed when this returns. Raises `Overloaded`, and whatever `commit` does."""
        if self._closing:
            raise Overloaded("the server is shutting down")
        if self.full():
            raise Overloaded(f"{len(self._queue)} {self._what} are waiting already")
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(command, result, tracing.current())
        self._queue.append(waiting)
        if self._work is None or self._work.done():
            # For many callers: neither the request nor the trace of the one who came first.
            self._work = asyncio.get_running_loop().create_task(self._run(), context=Context())
        return await waiting.result

    async def close(self) -> None:
        """Commit everything that was accepted, then stop."""
        self._closing = True
        if self._work is not None:
            await self._work

    async def _run(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_MAX))]
            began = monotonic()
            await self._settle(batch)
            self._pace.note(len(batch), monotonic() - began)

    async def _settle(self, batch: Sequence[_Waiting[C, R]]) -> None:
        """All together; if that fails by halves, so that who fails, fails alone."""
        try:
            with tracing.batch(self._what, (waiting.span for waiting in batch)):
                results = await self._commit([waiting.command for waiting in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers must be answered
            if len(batch) > 1 and not isinstance(error, (Refused, CommitInDoubt)):
                log.warning("batch.isolated", what=self._what, size=len(batch), error=str(error))
                middle = len(batch) // 2
                await self._settle(batch[:middle])
                await self._settle(batch[middle:])
                return
            for waiting in batch:
                if not waiting.result.done():
                    waiting.result.set_exception(error)
            return
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.result.done():
                waiting.result.set_result(result)
