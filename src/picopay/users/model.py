"""A user: somebody whose balance can be charged."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from picopay.kernel.money import Money


class User(NamedTuple):
    id: int
    created_at: datetime


class DepositCommand(NamedTuple):
    """`id` is the posting's, minted before anything is written; `key` is the client's."""

    id: UUID
    merchant_id: str
    user_id: int
    money: Money
    key: str | None


class Deposit(NamedTuple):
    id: UUID
    user_id: int
    money: Money
    balance_after_minor: int
    replayed: bool
