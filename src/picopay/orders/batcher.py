"""Group commit: of orders, and of what providers say of payments."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Final, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import asyncpg
from sqlalchemy.exc import DBAPIError

from picopay.infra.db import Db
from picopay.infra.gathering import Gatherer
from picopay.infra.sqlstates import WAITED, sqlstate
from picopay.kernel.errors import Overloaded
from picopay.ledger.errors import AccountLimit
from picopay.orders import payments, service
from picopay.orders.model import REFUND, Order, OrderCommand, Result, Shop, Word
from picopay.orders.rules import Busy, Declined, GiveBack, Made, Outcome, Replay, Settlement
from picopay.outbox.bell import Rings

C = TypeVar("C")
R = TypeVar("R")

LOCKED_SECONDS_MAX: Final = 10.0
AGAIN_SECONDS: Final = 0.02
# A callback often comes while the answer that named its payment is being written down, and that
# answer while the callback is.
BOUND_SECONDS_MAX: Final = 0.2
# So many wait for locks at a time, each with a connection that all requests share.
ALONE_MAX: Final = 4
ALONE_SECONDS_MAX: Final = 3.0


async def until_free(gatherer: Gatherer[C, R], command: C, seconds: float) -> R:
    """Again and again for so long while it is `Busy`; holding nothing meanwhile."""
    give_up_at = monotonic() + seconds
    while isinstance(result := await gatherer.submit(command), Busy):
        if monotonic() > give_up_at:
            break
        await asyncio.sleep(AGAIN_SECONDS)
    return result


class Batcher:
    """Orders that meet a locked product ask again, holding nothing."""

    def __init__(self, db: Db, shop: Shop, bell: Rings) -> None:
        self._db = db
        self._shop = shop
        self._bell = bell
        self._gatherer = Gatherer("orders", self._commit)

    def full(self, inside: int) -> bool:
        return self._gatherer.full(inside)

    async def place(self, command: OrderCommand) -> Made | Replay | Declined:
        """Committed when this returns. Raises `Overloaded`, and what `service.place_batch` does."""
        outcome = await until_free(self._gatherer, command, LOCKED_SECONDS_MAX)
        if isinstance(outcome, Busy):
            raise Overloaded("a product of the order is locked for too long")
        return outcome

    async def close(self) -> None:
        """Commit everything that was accepted, then stop."""
        await self._gatherer.close()

    async def _commit(self, commands: Sequence[OrderCommand]) -> list[Outcome]:
        outcomes = await service.place_batch(self._db, self._shop, commands)
        self._bell.ring(self._shop.provider.consumer)
        return outcomes


class _Few:
    """Few at a time, and of each order one: who waits for a locked one holds up no other order."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(ALONE_MAX)
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def one(self, order_id: UUID) -> AsyncGenerator[None]:
        """Raises `Overloaded`."""
        turn = self._turns.get(order_id)
        if turn is None:
            turn = self._turns[order_id] = asyncio.Lock()
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(ALONE_SECONDS_MAX):
                    await held.enter_async_context(turn)
                    await held.enter_async_context(self._slots)
            except TimeoutError:
                raise Overloaded("too many wait for orders that are locked") from None
            yield


class _NotAllError(Exception):
    """Of a batch, one does not fit."""


class Settler:
    """Ends orders. All payments are booked on the same two accounts: together, or each waits."""

    def __init__(self, db: Db, bell: Rings) -> None:
        self._db = db
        self._bell = bell
        self._gatherer = Gatherer("callbacks", self._commit)
        self._alone = _Few()
        self._canceling = _Few()

    def full(self, inside: int) -> bool:
        return self._gatherer.full(inside)

    async def settle(self, word: Word) -> Settlement:
        """Committed when this returns. Raises `Overloaded`, and what `payments.settle` does."""
        settlement = None
        if word.result is Result.SUCCESS:  # a failure needs no account: why should it wait for one?
            settlement = await until_free(self._gatherer, word, BOUND_SECONDS_MAX)
        if settlement is None or isinstance(settlement, Busy):
            settlement = await self._by_itself(word)
        if isinstance(settlement, GiveBack):
            self._bell.ring(REFUND.consumer)
        return settlement

    async def _by_itself(self, word: Word) -> Settlement:
        async with self._alone.one(word.order_id):
            return await payments.settle(self._db, word)

    async def cancel(self, order_id: UUID) -> Order:
        """Raises `Overloaded`, and what `service.cancel` does."""
        async with self._canceling.one(order_id):
            return await service.cancel(self._db, order_id)

    async def close(self) -> None:
        """Commit everything that was accepted, then stop."""
        await self._gatherer.close()

    async def _commit(self, words: Sequence[Word]) -> list[Settlement | Busy | None]:
        try:
            return await payments.settle_together(self._db, words)
        except (DBAPIError, asyncpg.PostgresError) as error:
            if sqlstate(error) not in WAITED:
                raise
            # For an account that all of them need: by halves they would only wait longer.
            raise Overloaded("an account of the payments is locked for too long") from None
        except AccountLimit as error:
            if len(words) == 1:
                raise
            raise _NotAllError from error  # by halves then: there may be room for the others
