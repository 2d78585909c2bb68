"""Says that there is something to do: within a process, and from one that has no worker to others.

Nobody relies on it: what is missed is found by looking again, a second later at most. NOTIFY is
sent after the commit and by itself, since within a business transaction it would make all commits
wait for each other.
"""

import asyncio
from collections import defaultdict
from contextlib import suppress
from typing import Final, Protocol

from picopay.infra.db import Db
from picopay.infra.logs import log
from picopay.outbox.rules import text_of

CHANNEL: Final = "picopay_outbox"
ANNOUNCED_SECONDS_MIN: Final = 0.003
LISTEN_AGAIN_SECONDS: Final = 1.0


class Rings(Protocol):
    """Called after each commit that appended events, with those who are to handle them."""

    def ring(self, *consumers: str) -> None: ...


class Bell:
    """Wakes this process's lanes, each of one consumer."""

    def __init__(self) -> None:
        self._lanes: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def listener(self, consumer: str) -> asyncio.Event:
        return self._lanes[consumer]

    def ring(self, *consumers: str) -> None:
        for consumer in self._lanes.keys() & consumers:
            self._lanes[consumer].set()


class Announcer:
    """Wakes other processes' lanes: at once, and then no more often than it must."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._rung = asyncio.Event()
        self._names = set[str]()
        self._announcing = asyncio.create_task(self._announce())

    def ring(self, *consumers: str) -> None:
        self._names.update(consumers)
        self._rung.set()

    async def _announce(self) -> None:
        while True:
            await self._rung.wait()
            self._rung.clear()
            names, self._names = self._names, set[str]()
            with suppress(Exception):  # the others will look by themselves
                async with self._db.read() as tx:
                    told = ",".join(sorted(names))
                    await tx.driver.execute("SELECT pg_notify($1, $2)", CHANNEL, told)
            await asyncio.sleep(ANNOUNCED_SECONDS_MIN)

    async def stop(self) -> None:
        self._announcing.cancel()
        await asyncio.gather(self._announcing, return_exceptions=True)


class Listener:
    """Rings this process's bell when another process announces events."""

    def __init__(self, db: Db, bell: Bell) -> None:
        self._db = db
        self._bell = bell
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while True:
            try:
                async with self._db.listening(CHANNEL, self._told) as lost:
                    await lost.wait()
            except Exception as error:  # noqa: BLE001 - it is only a convenience
                log.info("outbox.not_listening", error=text_of(error))
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)

    def _told(self, names: str) -> None:
        self._bell.ring(*names.split(","))

    async def stop(self) -> None:
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
