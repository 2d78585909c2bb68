"""What an `Idempotency-Key` header may hold."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, cast
from uuid import UUID

from picopay.idempotency.errors import KeyInvalid

# Stricter than UUID() alone, which takes whatever int(…, 16) does: 0x…, +… and underscores.
_UUID: Final = re.compile(
    r"(?:urn:uuid:)?\{?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\}?", re.IGNORECASE | re.ASCII
)
# As we keep it, and as most clients send it.
CANONICAL_UUID: Final = "[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
_CANONICAL: Final = re.compile(CANONICAL_UUID)
_LIKE_A_KEY: Final = re.compile(r"(?:x[-_]?)?idempotency[-_]?(?:key)?", re.IGNORECASE | re.ASCII)
_VISIBLE_ASCII: Final = re.compile(r"[\x21-\x7e]{1,255}")


def sent_keys(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The values of the `Idempotency-Key` headers, of (lower-case name, value) pairs."""
    return [value for name, value in headers if name == b"idempotency-key"]


def parse_uuid_key(values: Sequence[bytes]) -> str | None:
    """The header's values as one UUID in lower case with hyphens, or None when there is none.

    Raises `KeyInvalid` for an empty or repeated header and for what is no UUID (RFC 9562).
    """
    if not values:
        return None
    if len(values) > 1:
        raise KeyInvalid("the Idempotency-Key header must be sent once")
    return uuid_key(values[0].decode("latin-1"))


def check_misplaced(members: object, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """For what has no key: whether it has one where nobody looks, in its JSON or by its headers.

    Raises `KeyInvalid`: to go on without it would do twice what was to be done once.
    """
    names = [name.decode("latin-1") for name, _ in headers]
    if isinstance(members, Mapping):
        given = cast("Mapping[str, object]", members).items()
        names += [name for name, value in given if value is not None]
    for name in names:
        if _LIKE_A_KEY.fullmatch(name):
            raise KeyInvalid(f"{name!r} is not where the idempotency key is looked for")


def uuid_key(text: str) -> str:
    """A UUID in lower case with hyphens. Raises `KeyInvalid`."""
    if _CANONICAL.fullmatch(text):
        return text
    if not _UUID.fullmatch(text):
        raise KeyInvalid("the idempotency key must be a UUID")
    return _canonical(text)


def parse_key(values: Sequence[bytes]) -> str | None:
    """As `parse_uuid_key`, but any 1 to 255 visible ASCII characters will do."""
    if len(values) == 1 and _VISIBLE_ASCII.fullmatch(text := values[0].decode("latin-1")):
        return _canonical(text) if _UUID.fullmatch(text) else text
    if values:
        raise KeyInvalid("the Idempotency-Key header must be 1 to 255 visible ASCII characters")
    return None


def _canonical(text: str) -> str:
    return str(UUID(text.lower()))  # which knows the prefix in lower case only


def differing(**fields: tuple[object, object]) -> list[str]:
    """The names of those (asked, was) pairs that differ: a key must mean the same request."""
    return [name for name, (asked, was) in fields.items() if asked != was]
