"""Which of a batch's charges are made: a pure decision over locked balances, in arrival order."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from picopay.charges.model import (
    Approved,
    Charge,
    ChargeCommand,
    Decision,
    Declined,
    Replayed,
)
from picopay.idempotency.errors import KeyReused
from picopay.idempotency.model import KeyId
from picopay.idempotency.rules import differing
from picopay.kernel.errors import Refused
from picopay.ledger.model import Move, PostingKind
from picopay.ledger.rules import Book, insufficient
from picopay.users.errors import UserNotFound


def claims(commands: Sequence[ChargeCommand]) -> dict[KeyId, UUID]:
    """The charge each key is to make. Twins, commands of one key, share the first one's id."""
    resources: dict[KeyId, UUID] = {}
    for command in commands:
        if (key := command.key_id) is not None:
            resources.setdefault(key, command.id)
    return resources


def decide_batch(
    commands: Sequence[ChargeCommand],
    book: Book,
    claimed: Mapping[KeyId, UUID],
    known: Mapping[KeyId, Charge],
    unknown_users: Collection[int],
) -> list[Decision]:
    """Decide every command in order, exactly as if each had come alone.

    `book` holds the payers that have an account, and the merchants as its payees; approved charges
    are posted on it. `claimed` are the ids for our keys, `known` the charges that keys made before.
    """
    made = dict(known)
    decisions: list[Decision] = []
    for command in commands:
        key = command.key_id
        if key is not None and (charge := made.get(key)) is not None:
            decisions.append(replay(command, charge))
            continue
        charge_id = command.id if key is None else claimed[key]
        decision = _decide(command, charge_id, book, unknown_users)
        if key is not None and isinstance(decision, Approved):
            made[key] = decision.charge
        decisions.append(decision)
    return decisions


def _decide(
    command: ChargeCommand, charge_id: UUID, book: Book, unknown_users: Collection[int]
) -> Approved | Declined:
    if command.payer not in book:
        return Declined(_no_account(command, unknown_users))
    kind = PostingKind.CHARGE
    move = Move(charge_id, kind, command.payer, command.merchant, command.money.minor)
    try:
        posting = book.post(move)
    except Refused as reason:
        return Declined(reason.with_traceback(None))  # or it would keep the whole batch alive
    return Approved(Charge(charge_id, *command[1:4], posting.debit_balance, command.key))


def _no_account(command: ChargeCommand, unknown_users: Collection[int]) -> Refused:
    if command.user_id in unknown_users:
        return UserNotFound(command.user_id)
    return insufficient(0, command.money)


def replay(command: ChargeCommand, charge: Charge) -> Replayed | Declined:
    """The charge again, if the command means the same; its key is refused if not."""
    different = mismatches(command, charge)
    return Declined(KeyReused(different)) if different else Replayed(charge)


def mismatches(command: ChargeCommand, charge: Charge) -> list[str]:
    """The fields in which the command differs from the charge that its key has made."""
    return differing(
        user_id=(command.user_id, charge.user_id),
        amount=(command.money.minor, charge.money.minor),
        currency=(command.money.currency, charge.money.currency),
    )


def refused_claims(
    claimed: Mapping[KeyId, UUID],
    commands: Sequence[ChargeCommand],
    decisions: Sequence[Decision],
) -> dict[KeyId, UUID]:
    """What was claimed for commands of which none was approved: it goes back."""
    kept = {
        command.key_id
        for command, decision in zip(commands, decisions, strict=True)
        if not isinstance(decision, Declined)
    }
    return {key: resource for key, resource in claimed.items() if key not in kept}
