"""Which charges come next: of those that arrived, and of those whose payer stays locked."""

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Final

from picopay.charges.waiting import Item
from picopay.ledger.model import AccountId

BATCH_MAX: Final = 256
BULK_BATCH_MAX: Final = 1024  # a charge in it costs a quarter less, and it keeps others waiting
# A payer found locked is most likely in another process's batch, and soon free: its charges leave
# the arrivals only after this time.
BUSY_SECONDS: Final = 0.03


class Arrivals:
    """First come, first served; but who has to wait for a payer does not keep the others."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._busy_since: dict[AccountId, float] = {}
        self._put_back = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def only_busy(self) -> bool:
        return 0 < self._put_back == len(self._items)

    def put(self, item: Item) -> None:
        self._items.append(item)

    def take(self, most: int = BATCH_MAX) -> list[Item]:
        return _taken(self._items, most)

    def put_back(self, busy: Sequence[Item]) -> list[Item]:
        """Keep the items for the next batch, but for those busy for too long: they are returned."""
        now, before = monotonic(), self._busy_since
        payers = {item.command.payer for item in busy}
        self._busy_since = {payer: before.get(payer, now) for payer in payers}
        late = {payer for payer, since in self._busy_since.items() if now - since > BUSY_SECONDS}
        kept = [item for item in busy if item.command.payer not in late]
        self._items.extendleft(reversed(kept))
        self._put_back = len(kept)
        return [item for item in busy if item.command.payer in late]


class Late:
    """Charges of payers that stay locked. Each batch asks for all of these, a fair share each."""

    def __init__(self) -> None:
        self._by_payer: dict[AccountId, deque[Item]] = {}
        self._waiting = 0
        self._put_back = 0

    def __len__(self) -> int:
        return self._waiting

    def __contains__(self, payer: AccountId) -> bool:
        return payer in self._by_payer

    @property
    def only_busy(self) -> bool:
        return self._put_back > 0

    def put(self, item: Item) -> None:
        self._by_payer.setdefault(item.command.payer, deque()).append(item)
        self._waiting += 1

    def take(self, most: int = BATCH_MAX) -> list[Item]:
        taken: list[Item] = []
        share = max(1, most // len(self._by_payer))
        for payer in list(self._by_payer)[:most]:
            queue = self._by_payer.pop(payer)
            taken += _taken(queue, share)
            self._by_payer[payer] = queue  # behind the others, should they be too many
        self._waiting -= len(taken)
        return taken

    def put_back(self, busy: Sequence[Item]) -> list[Item]:
        """Keep the items where they were, and forget the payers of whom nothing is left."""
        for item in reversed(busy):
            self._by_payer[item.command.payer].appendleft(item)
        self._waiting += len(busy)
        self._put_back = len(busy)
        self._by_payer = {payer: queue for payer, queue in self._by_payer.items() if queue}
        return []


def _taken(queue: deque[Item], most: int) -> list[Item]:
    return [queue.popleft() for _ in range(min(len(queue), most))]
