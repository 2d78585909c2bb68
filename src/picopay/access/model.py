"""API keys: who calls, and what he may do."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

DEFAULT_MERCHANT: Final = "default"


class Scope(StrEnum):
    """Only charges belong to the key's merchant; `users` and `ledger` reach everybody's."""

    CHARGES = "charges"
    USERS = "users"
    LEDGER = "ledger"


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
