"""Group commit of webhooks, and word to the workers."""

from collections.abc import Sequence

from picopay.infra.db import Db
from picopay.infra.gathering import Gatherer
from picopay.outbox.bell import Rings
from picopay.outbox.pace import POLL_SECONDS_MAX
from picopay.transfers import service
from picopay.transfers.model import CONSUMER, Receipt, TransferCommand


class Batcher:
    def __init__(self, db: Db, bell: Rings, *, delay_seconds: float) -> None:
        self._db = db
        self._bell = bell
        self._delay_seconds = delay_seconds
        self._gatherer = Gatherer("webhooks", self._commit)

    def full(self, inside: int) -> bool:
        return self._gatherer.full(inside)

    async def receive(self, command: TransferCommand, request_id: str | None) -> Receipt:
        """Committed when this returns. Raises `Overloaded`."""
        return await self._gatherer.submit((command, request_id))

    async def close(self) -> None:
        """Commit everything that was accepted, then stop."""
        await self._gatherer.close()

    async def _commit(
        self, commands: Sequence[tuple[TransferCommand, str | None]]
    ) -> list[Receipt]:
        receipts = await service.receive(self._db, commands, self._delay_seconds)
        if self._delay_seconds < POLL_SECONDS_MAX:  # what is due later is found by looking
            self._bell.ring(CONSUMER)
        return receipts
