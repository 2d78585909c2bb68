"""Which of a batch's charges are made, in arrival order, and what of a charge may be refunded.

Pure decisions over what is locked.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from picopay.charges.errors import MerchantBalanceInsufficient, RefundExceedsCharge
from picopay.charges.model import (
    Approved,
    Charge,
    ChargeCommand,
    Decision,
    Declined,
    Refund,
    RefundCommand,
    Replayed,
)
from picopay.idempotency.errors import KeyReused
from picopay.idempotency.model import KeyId
from picopay.idempotency.rules import differing
from picopay.kernel.errors import Refused
from picopay.kernel.money import Money
from picopay.kernel.tuples import new
from picopay.ledger.model import Move, PostingKind
from picopay.ledger.rules import Book, insufficient
from picopay.users.errors import UserNotFound

# Looked up once: as a member of its class it costs a call of Python's each time.
_CHARGE: Final = PostingKind.CHARGE


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
    _, merchant_id, user_id, money, key, payer, merchant, _ = command
    if payer not in book:
        return Declined(_no_account(command, unknown_users))
    move = new(Move, (charge_id, _CHARGE, payer, merchant, money.minor))
    try:
        posting = book.post(move)
    except Refused as reason:
        return Declined(reason.with_traceback(None))  # or it would keep the whole batch alive
    made = (charge_id, merchant_id, user_id, money, posting.debit_balance, key)
    return new(Approved, (new(Charge, made),))


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


def decide_refund(command: RefundCommand, refunded_minor: int, now: datetime) -> Refund:
    """The refund to be made of a charge of which `refunded_minor` went back before.

    Raises `RefundExceedsCharge`.
    """
    charged, currency = command.charge.money
    left = charged - refunded_minor
    minor = left if command.asked_minor is None else command.asked_minor
    if not 0 < minor <= left:
        raise RefundExceedsCharge(Money(left, currency))
    return Refund(
        command.id,
        command.charge.id,
        Money(minor, currency),
        refunded_minor + minor,
        amount_given=command.asked_minor is not None,
        reason=command.reason,
        created_at=now,
    )


def post_refund(book: Book, command: RefundCommand, refund: Refund) -> None:
    """From the merchant, who must have it, back to the payer.

    Raises `MerchantBalanceInsufficient` or `AccountLimit`.
    """
    available = Money(book.balance(command.merchant), refund.money.currency)
    if available.minor < refund.money.minor:
        raise MerchantBalanceInsufficient(available, refund.money)
    kind = PostingKind.REFUND
    book.post(Move(refund.id, kind, command.merchant, command.payer, refund.money.minor))


def replay_refund(command: RefundCommand, refund: Refund) -> Refund:
    """What the key has made, if the command means the same. Raises `KeyReused`."""
    given = refund.money.minor if refund.amount_given else None
    different = differing(
        charge_id=(command.charge.id, refund.charge_id),
        amount=(command.asked_minor, given),
        reason=(command.reason, refund.reason),
    )
    if different:
        raise KeyReused(different)
    return refund
