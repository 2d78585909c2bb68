"""An idempotency key with all that makes it one of its kind."""

from enum import StrEnum
from typing import NamedTuple


class Operation(StrEnum):
    __hash__ = str.__hash__  # an enumeration's own is a call of Python's, for each look-up of a key

    CHARGE = "charge"
    DEPOSIT = "deposit"
    REFUND = "refund"
    ORDER = "order"
    PAYMENT = "payment"  # a payment's name, of the order that it was made for


class KeyId(NamedTuple):
    """Keys belong to the merchant of the API key, and to one operation."""

    key: str
    merchant_id: str
    operation: Operation
