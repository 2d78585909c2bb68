"""The nouns of charging: what is asked, what is decided, what is kept."""

from datetime import datetime
from typing import Final, NamedTuple, Self
from uuid import UUID

from picopay.idempotency.model import KeyId, Operation
from picopay.kernel.errors import Refused
from picopay.kernel.money import Money
from picopay.kernel.tuples import new
from picopay.ledger.model import AccountId, merchant_account, user_owner

# Looked up once: as a member of its class it costs a call of Python's each time.
_CHARGE: Final = Operation.CHARGE


class ChargeCommand(NamedTuple):
    """`id` is minted before anything is written; `key` is the client's idempotency key.

    The accounts and the key's identity follow from the rest; they are kept, since a batch asks
    for them several times a charge.
    """

    id: UUID
    merchant_id: str
    user_id: int
    money: Money
    key: str | None
    payer: AccountId
    merchant: AccountId
    key_id: KeyId | None

    @classmethod
    def of(
        cls, charge_id: UUID, merchant_id: str, user_id: int, money: Money, key: str | None
    ) -> Self:
        payer = new(AccountId, (user_owner(user_id), money.currency))
        merchant = merchant_account(merchant_id, money.currency)
        key_id = new(KeyId, (key, merchant_id, _CHARGE)) if key else None
        return new(cls, (charge_id, merchant_id, user_id, money, key, payer, merchant, key_id))


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
    refunded_minor: int


class Approved(NamedTuple):
    charge: Charge


class Replayed(NamedTuple):
    """The key has made this charge before; nothing moves."""

    charge: Charge


class Declined(NamedTuple):
    reason: Refused


class Busy(NamedTuple):
    """Undecided: the payer's account is locked elsewhere."""


Decision = Approved | Replayed | Declined
Outcome = Decision | Busy


class RefundCommand(NamedTuple):
    """Give `asked_minor` of a charge back to its payer; None asks for all that is left.

    `id` is the refund's, and its posting's, minted before anything is written; `key` is the
    client's. Of the charge only that counts which never changes.
    """

    id: UUID
    charge: Charge
    asked_minor: int | None
    reason: str | None
    key: str

    @property
    def key_id(self) -> KeyId:
        return KeyId(self.key, self.charge.merchant_id, Operation.REFUND)

    @property
    def payer(self) -> AccountId:
        return AccountId(user_owner(self.charge.user_id), self.charge.money.currency)

    @property
    def merchant(self) -> AccountId:
        return merchant_account(self.charge.merchant_id, self.charge.money.currency)


class Refund(NamedTuple):
    """A refund that was made, as it is answered: now, and at every replay.

    `refunded_after_minor` is how much of the charge was refunded right after it. `amount_given`
    tells whether the caller said how much: who repeats it must do so too.
    """

    id: UUID
    charge_id: UUID
    money: Money
    refunded_after_minor: int
    amount_given: bool
    reason: str | None
    created_at: datetime
