"""What happens to transfers later."""

from collections.abc import Sequence
from typing import Final

import orjson

from picopay.infra.logs import log_all
from picopay.infra.tx import Tx
from picopay.outbox.consumer import Consumer
from picopay.outbox.errors import Permanent
from picopay.outbox.model import Event
from picopay.transfers import service
from picopay.transfers.model import CONSUMER

PROCESSED: Final = "transfer.processed"  # a log event; see docs/reference/logs.md


async def on_received(tx: Tx, events: Sequence[Event]) -> None:
    """Post them to the ledger."""
    await service.process(tx, {_transaction_id(event) for event in events})


def on_done(events: Sequence[Event]) -> None:
    log_all(
        PROCESSED,
        [{"transaction_id": _name(event), "request_id": event.request_id} for event in events],
    )


async def on_dead(tx: Tx, events: Sequence[Event]) -> None:
    await service.give_up(tx, [_name(event) for event in events])


def _name(event: Event) -> str:
    """Which transaction it is about, even if its body does not tell."""
    return event.aggregate.partition(":")[2]


def _transaction_id(event: Event) -> str:
    try:
        return str(orjson.loads(event.body)["transaction_id"])
    except (ValueError, KeyError, TypeError):
        raise Permanent(f"the body of event {event.id} is not a transfer") from None


TRANSFERS = Consumer(CONSUMER, together=on_received, on_done=on_done, on_dead=on_dead)
