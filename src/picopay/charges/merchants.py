"""Charges whose merchant is locked elsewhere."""

from asyncio import get_running_loop
from collections.abc import Callable, Collection

from picopay.charges.waiting import Item, in_time, present
from picopay.infra.db import Db
from picopay.ledger import service as ledger
from picopay.ledger.model import AccountId


class LockedMerchants:
    """They wait here, holding nothing that others need, and start again once it is free."""

    def __init__(self, db: Db, restart: Callable[[Item], None]) -> None:
        self._db = db
        self._restart = restart
        self._queues: dict[AccountId, list[Item]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def __contains__(self, merchant: AccountId) -> bool:
        return merchant in self._queues

    def put(self, item: Item) -> None:
        self._queues.setdefault(item.command.merchant, []).append(item)

    async def watch(self) -> None:
        """Until nobody waits any more."""
        while self._queues:
            free = await self._free()
            now = get_running_loop().time()
            waiting = {m: in_time(present(q, now), now) for m, q in self._queues.items()}
            self._queues = {m: queue for m, queue in waiting.items() if queue and m not in free}
            for merchant in free:
                for item in waiting[merchant]:
                    self._restart(item)

    async def _free(self) -> Collection[AccountId]:
        first = next(iter(self._queues))
        self._queues[first] = self._queues.pop(first)  # each is the first in its turn
        try:
            return await ledger.await_free(self._db, first, set(self._queues))
        except Exception:  # noqa: BLE001 - whatever it is, their batch will meet it too, and tell
            return list(self._queues)
