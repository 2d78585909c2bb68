"""PostgreSQL's names for what went wrong (its manual, appendix A)."""

from typing import Final

from sqlalchemy.exc import DBAPIError

DEADLOCK: Final = "40P01"
SERIALIZATION: Final = "40001"
LOCK_NOT_AVAILABLE: Final = "55P03"
FEATURE_NOT_SUPPORTED: Final = "0A000"  # as when a statement was prepared before a migration
OUT_OF_RANGE: Final = "22003"
QUERY_CANCELED: Final = "57014"
# What another attempt mends by itself: the driver forgets statements that no longer fit.
PASSING: Final = frozenset({DEADLOCK, SERIALIZATION, FEATURE_NOT_SUPPORTED})
# A lock was waited for in vain, or a statement for too long.
WAITED: Final = frozenset({LOCK_NOT_AVAILABLE, QUERY_CANCELED})

# What passes by itself, and may not be there on another connection: connections that break, a
# server that stops or crashed, no room on the disk or for a connection, a server that only reads.
_AWAY: Final = ("08", "57P", "53", "25006")


def is_away(error: BaseException) -> bool:
    """The database can do nothing for anybody at the moment, through this connection at least."""
    return (sqlstate(error) or "").startswith(_AWAY)


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's code for the error, e.g. `55P03`; constraint names differ between engines."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return getattr(original, "sqlstate", None)
