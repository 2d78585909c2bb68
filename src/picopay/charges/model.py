"""The nouns of charging: what is asked, what is decided, what is kept."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from picopay.idempotency.model import KeyId, Operation
from picopay.kernel.errors import Refused
from picopay.kernel.money import Money
from picopay.ledger.model import AccountId, merchant_owner, user_owner


class ChargeCommand(NamedTuple):
    """`id` is minted before anything is written; `key` is the client's idempotency key."""

    id: UUID
    merchant_id: str
    user_id: int
    money: Money
    key: str | None

    @property
    def payer(self) -> AccountId:
        return AccountId(user_owner(self.user_id), self.money.currency)

    @property
    def merchant(self) -> AccountId:
        return AccountId(merchant_owner(self.merchant_id), self.money.currency)

    @property
    def key_id(self) -> KeyId | None:
        return KeyId(self.key, self.merchant_id, Operation.CHARGE) if self.key else None


class Charge(NamedTuple):
    """A charge that was made, as it is answered: now, and at every replay."""

    id: UUID
    merchant_id: str
    user_id: int
    money: Money
    balance_after_minor: int
    key: str | None


class ListedCharge(NamedTuple):
    charge: Charge
    created_at: datetime


class Approved(NamedTuple):
    charge: Charge


class Replayed(NamedTuple):
    """The key has made this charge before; nothing moves."""

    charge: Charge


class Declined(NamedTuple):
    reason: Refused


class Busy(NamedTuple):
    """Undecided: the payer's account is locked elsewhere. The charge leaves the main lane."""


Decision = Approved | Replayed | Declined
Outcome = Decision | Busy
