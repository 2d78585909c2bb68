"""Identity: time-ordered ids made by the application, never by a sequence."""

from uuid import UUID

import uuid_utils
from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7): unique everywhere, and roughly in the order of creation."""
    return uuid7()


def new_id_text() -> str:
    """As `new_id`, for where only its text is wanted."""
    return str(uuid_utils.uuid7())
