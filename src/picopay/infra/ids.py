"""Identity: time-ordered ids made by the application, never by a sequence."""

import os
import socket
from uuid import UUID, uuid4

import uuid_utils
from asyncpg.pgproto import pgproto


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7): unique everywhere, and roughly in the order of creation.

    Of the driver's own kind, which is made and sent in a fraction of the time.
    """
    return pgproto.UUID(uuid_utils.uuid7().bytes)


def new_id_text() -> str:
    """As `new_id`, for where only its text is wanted."""
    return str(uuid_utils.uuid7())


def process_name() -> str:
    """Of this start of this process: never one that another has had."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"
