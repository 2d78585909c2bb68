"""Transactions one after the other, for a loop that runs many of them."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from picopay.infra.db import Db
from picopay.infra.tx import Tx


class Chain:
    """Keeps its connection from one transaction to the next.

    When `more` says so at its end, a transaction begins the next one with its own COMMIT: a round
    trip less. Whoever then has no transaction to run must `rest`.
    """

    def __init__(self, db: Db, more: Callable[[], bool]) -> None:
        self._db = db
        self._more = more
        self._kept: AsyncConnection | None = None
        self._begun = False

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[Tx]:
        """As `Db.begin`."""
        if self._kept is None:
            self._kept = await self._db.connect()
        begin = None if self._begun else "BEGIN"
        self._begun = chains = False

        def commit() -> str:
            nonlocal chains
            chains = self._more()
            return "COMMIT AND CHAIN" if chains else "COMMIT"

        try:
            async with self._db.transaction(self._kept, begin, commit) as tx:
                yield tx
            self._begun = chains
        finally:
            if not self._begun:
                await self.rest()

    async def rest(self) -> None:
        """Give the connection back, and a transaction that was begun in vain up."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        if self._begun:
            self._begun = False
            await self._db.roll_back(kept)
        await kept.close()
