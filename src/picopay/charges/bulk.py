"""Bulk requests take turns: to read and to render thousands of items takes space, and time."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import ClientDisconnect

from picopay.charges.waiting import Gone
from picopay.kernel.errors import Overloaded

BULK_SLOTS: Final = 2  # read or rendered at a time
BULK_WAITING_MAX: Final = 16


class BulkTurns:
    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(BULK_SLOTS)
        self._waiting = 0

    @asynccontextmanager
    async def reading(self, gone: Gone) -> AsyncGenerator[None]:
        """Raises `Overloaded` when many wait already, `ClientDisconnect` for who left meanwhile."""
        if self._waiting == BULK_WAITING_MAX:
            raise Overloaded("many bulk requests are waiting already")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            if gone():
                raise ClientDisconnect
            yield
        finally:
            self._slots.release()

    @asynccontextmanager
    async def rendering(self) -> AsyncGenerator[None]:
        """Whoever comes here has charged."""
        async with self._slots:
            yield
