"""What a repeated deposit must have in common with the first."""

from picopay.idempotency.rules import differing
from picopay.ledger.model import Posting, user_id_of
from picopay.users.model import DepositCommand


def mismatches(command: DepositCommand, made: Posting) -> list[str]:
    """The fields in which the command differs from the deposit that its key has made."""
    return differing(
        user_id=(command.user_id, user_id_of(made.move.credit.owner)),
        amount=(command.money.minor, made.move.minor),
        currency=(command.money.currency, made.move.credit.currency),
    )
