"""Use cases of transfers: receive them, process them, look at them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final
from uuid import UUID

from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.infra.json import dump
from picopay.infra.tx import Tx
from picopay.ledger import service as ledger
from picopay.ledger.rules import Book
from picopay.outbox import service as outbox
from picopay.outbox.model import NewEvent
from picopay.transfers import rules, store
from picopay.transfers.errors import TransactionNotFound
from picopay.transfers.model import (
    CONSUMER,
    RECEIVED,
    Receipt,
    Status,
    Transfer,
    TransferCommand,
    aggregate_of,
)
from picopay.transfers.store import Filter

_CONSUMERS: Final = (CONSUMER,)
# An id that another transaction holds is waited for by all of its batch: less than by itself.
TOGETHER_LOCK_TIMEOUT_MS: Final = 50


async def receive(
    db: Db, commands: Sequence[tuple[TransferCommand, str | None]], delay_seconds: float
) -> list[Receipt]:
    """Keep each transfer once, with the event that will process it; (command, request id) pairs.

    When this returns they are committed. A COMMIT whose answer was lost is run again: it finds
    what the first one made.
    """
    asked = [command for command, _ in commands]
    request_ids = {command.id: request_id for command, request_id in commands}

    lock_timeout_ms = TOGETHER_LOCK_TIMEOUT_MS if len(commands) > 1 else None

    async def work(tx: Tx) -> list[Receipt]:
        chosen = rules.firsts(asked)
        new = await store.insert_absent(tx, chosen.values())
        await outbox.append(
            tx, [_received(chosen[i], request_ids, delay_seconds) for i in sorted(new)]
        )
        stored = await store.select_by_ids(tx, chosen.keys())
        return rules.receipts(asked, {transfer.transaction_id: transfer for transfer in stored})

    return await db.repeating(work, lock_timeout_ms=lock_timeout_ms)


def _received(
    command: TransferCommand, request_ids: Mapping[UUID, str | None], delay_seconds: float
) -> NewEvent:
    body = {
        "transaction_id": command.transaction_id,
        "source_account": command.source,
        "destination_account": command.destination,
        "amount": command.money,
        "currency": command.money.currency,
    }
    return NewEvent(
        new_id(),
        RECEIVED,
        aggregate_of(command.transaction_id),
        _CONSUMERS,
        dump(body),
        delay_seconds,
        request_id=request_ids[command.id],
    )


async def process(tx: Tx, transaction_ids: Collection[str]) -> None:
    """Post each transfer that is not posted yet, source to destination.

    Raises `AccountLimit`.
    """
    found = await store.select_by_ids(tx, transaction_ids, lock=True)
    moves = rules.moves(found)
    if moves:
        accounts = {account for move in moves for account in (move.debit, move.credit)}
        book = Book(await ledger.lock_or_open(tx, accounts))
        for move in moves:
            book.post(move)
        await ledger.write(tx, book)
        await store.mark(tx, [t.transaction_id for t in found], Status.PROCESSED)


async def give_up(tx: Tx, transaction_ids: Collection[str]) -> None:
    """Processing ended as a dead letter."""
    await store.mark(tx, transaction_ids, Status.FAILED)


async def show(db: Db, transaction_id: str) -> Transfer:
    """Raises `TransactionNotFound`."""
    found = await db.query(lambda tx: store.select_by_ids(tx, [transaction_id]))
    if not found:
        raise TransactionNotFound(transaction_id)
    return found[0]


async def page(db: Db, wanted: Filter, limit: int) -> list[Transfer]:
    """Newest first; one more than `limit` tells that there are more."""
    return await db.query(lambda tx: store.select_page(tx, wanted, limit + 1))
