"""What is done beside events: one worker frees what is stuck and prunes, each page is kept true."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from picopay.infra import metrics, pools
from picopay.infra.db import ConnectionLost, DatabaseUnavailable, Db
from picopay.infra.logs import log
from picopay.outbox import rules, service

SWEEP_SECONDS: Final = 1.0
SAMPLE_SECONDS: Final = 5.0
PRUNE_SECONDS: Final = 60.0
# A holder that died is missed for so many rounds.
ROUNDS_HELD: Final = 3

Work = Callable[[], Awaitable[None]]


class Rounds:
    """Each chore in a task of its own, again and again until `stop`."""

    def __init__(self, *chores: tuple[str, float, Work]) -> None:
        self._stopping = False
        self._tasks = [asyncio.create_task(self._repeat(*chore)) for chore in chores]

    async def stop(self) -> None:
        """A chore that is told so while it commits learns of a doubtful COMMIT instead."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, name: str, seconds: float, work: Work) -> None:
        while not self._stopping:
            pause = seconds
            began = monotonic()
            try:
                await work()
                pause = rules.pause_after(monotonic() - began, seconds)
            except Exception as error:  # noqa: BLE001 - a chore is done another time
                metrics.worker_errors.inc()
                log.warning("outbox.chore_failed", chore=name, error=rules.text_of(error))
            if not self._stopping:
                await asyncio.sleep(pause)


class Chores:
    """Each is held by one worker, which renews it with each round; see `worker_duties`."""

    def __init__(self, db: Db, owner: str, retention_days: float) -> None:
        self._db = db
        self._owner = owner
        self._retention_days = retention_days
        self._rounds = Rounds(
            ("sweep", SWEEP_SECONDS, self._sweep), ("prune", PRUNE_SECONDS, self._prune)
        )

    async def stop(self) -> None:
        await self._rounds.stop()

    async def _sweep(self) -> None:
        if await self._holds("sweep", SWEEP_SECONDS) and (freed := await service.sweep(self._db)):
            log.info("outbox.swept", keys=freed)

    async def _prune(self) -> None:
        if not await self._holds("prune", PRUNE_SECONDS):
            return
        while deleted := await service.prune(self._db, self._retention_days):
            log.info("outbox.pruned", rows=deleted)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _holds(self, duty: str, seconds: float) -> bool:
        return await service.hold_duty(self._db, duty, self._owner, ROUNDS_HELD * seconds)


class Sampler:
    """Measures queue, database and pools for this process's metrics page, whoever works.

    A duty would not do: who holds it may show no page.
    """

    def __init__(self, db: Db) -> None:
        self._db = db
        self._rounds = Rounds(("sample", SAMPLE_SECONDS, self._sample))

    async def stop(self) -> None:
        await self._rounds.stop()

    async def _sample(self) -> None:
        pools.measure()
        try:
            depth = await service.depth(self._db)
        except (ConnectionLost, DatabaseUnavailable):
            metrics.database_up.set(0)
            raise
        metrics.database_up.set(1)
        metrics.outbox_pending.set(depth.pending)
        metrics.outbox_due.set(depth.due)
        metrics.outbox_blocked.set(depth.blocked)
        metrics.outbox_oldest_due.set(depth.oldest_due_seconds)
        metrics.dead_letters_open.set(depth.dead_letters)
