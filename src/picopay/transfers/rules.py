"""What a webhook means, and what processing does: pure."""

from collections.abc import Iterable, Mapping, Sequence

from picopay.idempotency.rules import differing
from picopay.ledger.model import Move, PostingKind
from picopay.transfers.model import Receipt, Status, Transfer, TransferCommand, account_of


def firsts(commands: Sequence[TransferCommand]) -> dict[str, TransferCommand]:
    """Of twins the first one counts, by transaction id."""
    chosen: dict[str, TransferCommand] = {}
    for command in commands:
        chosen.setdefault(command.transaction_id, command)
    return chosen


def receipts(commands: Sequence[TransferCommand], stored: Mapping[str, Transfer]) -> list[Receipt]:
    """One for each command, by what is stored under its transaction id."""
    return [_receipt(command, stored[command.transaction_id]) for command in commands]


def _receipt(command: TransferCommand, stored: Transfer) -> Receipt:
    if stored.id == command.id:
        return Receipt.ACCEPTED
    return Receipt.CONFLICTING if mismatches(command, stored) else Receipt.REPEATED


def mismatches(command: TransferCommand, stored: Transfer) -> list[str]:
    """The fields in which a repeated webhook differs from the first."""
    return differing(
        source_account=(command.source, stored.source),
        destination_account=(command.destination, stored.destination),
        amount=(command.money.minor, stored.money.minor),
        currency=(command.money.currency, stored.money.currency),
    )


def moves(transfers: Iterable[Transfer]) -> list[Move]:
    """What is to be posted: each transfer once, whatever became of it before."""
    return [
        Move(
            t.id,
            PostingKind.TRANSFER,
            account_of(t.source, t.money.currency),
            account_of(t.destination, t.money.currency),
            t.money.minor,
        )
        for t in transfers
        if t.status is not Status.PROCESSED
    ]
