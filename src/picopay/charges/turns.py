"""A merchant's refunds take turns at the database: they all need its account."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from picopay.kernel.errors import Overloaded

# So those of one merchant never take all connections, and its charges wait for few of them.
AT_WORK_MAX: Final = 2
TURN_SECONDS_MAX: Final = 5.0


class Turns:
    def __init__(self) -> None:
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, merchant_id: str) -> AsyncGenerator[None]:
        """Raises `Overloaded` when it does not come in time."""
        slots = self._slots.get(merchant_id)
        if slots is None:
            slots = self._slots[merchant_id] = asyncio.Semaphore(AT_WORK_MAX)
        try:
            async with asyncio.timeout(TURN_SECONDS_MAX):
                await slots.acquire()
        except TimeoutError:
            raise Overloaded("many refunds of the merchant are waiting already") from None
        try:
            yield
        finally:
            slots.release()
