"""API keys: who calls, and what he may do. Rate limits: how often."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

DEFAULT_MERCHANT: Final = "default"


class Scope(StrEnum):
    """Only charges belong to the key's merchant; all others reach everybody's."""

    CHARGES = "charges"
    USERS = "users"
    LEDGER = "ledger"
    TRANSACTIONS = "transactions"
    ORDERS = "orders"
    ADMIN = "admin"


class KeyState(StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Caller(NamedTuple):
    """An authenticated identity. The bootstrap key of the settings has no `key_id`."""

    key_id: UUID | None
    merchant_id: str
    scopes: frozenset[Scope]


class KeyWanted(NamedTuple):
    """What a new key is to be; without `expires_in` it lasts until it is revoked."""

    name: str
    merchant_id: str
    scopes: frozenset[Scope]
    live: bool
    expires_in: timedelta | None = None


class NewKey(NamedTuple):
    """A key about to be stored: its digest, never its text."""

    id: UUID
    name: str
    merchant_id: str
    scopes: frozenset[Scope]
    prefix: str
    digest: bytes


class ApiKey(NamedTuple):
    """What may be shown of a key: `prefix` is how its text begins."""

    id: UUID
    name: str
    merchant_id: str
    scopes: frozenset[Scope]
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    state: KeyState


# No rule allows more: what is remembered of a subject is bounded by it.
LIMIT_MAX: Final = 100_000

_RULE_NAME: Final = re.compile("[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Rule:
    """At most `limit` in any `window_seconds`; a limit of 0 switches the rule off.

    `name` is public: it stands in metrics, headers and the names of keys in Redis.
    """

    name: str
    limit: int
    window_seconds: int

    def __post_init__(self) -> None:
        assert _RULE_NAME.fullmatch(self.name)
        assert 0 <= self.limit <= LIMIT_MAX
        assert self.window_seconds >= 1

    @property
    def window_us(self) -> int:
        return self.window_seconds * 1_000_000


class Spending(NamedTuple):
    """One of a rule's allowance; `key` names rule and subject, and hides who that is."""

    rule: Rule
    key: str


class Grant(NamedTuple):
    """What was taken, so that exactly this can be given back; `at_us` is of no clock but ours."""

    member: bytes
    spent: tuple[Spending, ...]
    at_us: int


class Verdict(NamedTuple):
    """Allowed, or limited by the rule that lasts longest, for so many microseconds from now."""

    limited_by: Rule | None
    wait_us: int


ALLOWED: Final = Verdict(None, 0)
