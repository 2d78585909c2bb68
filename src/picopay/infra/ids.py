"""Identity: time-ordered ids made by the application, never by a sequence."""

from uuid import UUID

from uuid_utils.compat import uuid7

__all__ = ["UUID", "new_id"]


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7): unique everywhere, and roughly in the order of creation."""
    return uuid7()
