"""Transfers: external movements of money that somebody tells us of, by webhook."""

from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from picopay.kernel.money import Money
from picopay.ledger.model import AccountId

RECEIVED: Final = "transfer.received"
CONSUMER: Final = "transfers"


class Status(StrEnum):
    PROCESSING = "PROCESSING"
    PROCESSED = "PROCESSED"
    FAILED = "FAILED"  # given up: a dead letter tells why


class TransferCommand(NamedTuple):
    """`id` is ours, and will be the posting's; `transaction_id` is the sender's."""

    id: UUID
    transaction_id: str
    source: str
    destination: str
    money: Money


class Transfer(NamedTuple):
    transaction_id: str
    id: UUID
    source: str
    destination: str
    money: Money
    status: Status
    created_at: datetime
    processed_at: datetime | None


class Receipt(StrEnum):
    """What became of a webhook; the sender is answered alike."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    CONFLICTING = "conflicting"  # the first stands


def account_of(name: str, currency: str) -> AccountId:
    """The ledger's account of somebody outside; it may go negative."""
    return AccountId(f"external:{name}", currency)


def aggregate_of(transaction_id: str) -> str:
    return f"transfer:{transaction_id}"
