"""PostgreSQL's names for what went wrong (its manual, appendix A)."""

from typing import Final

from sqlalchemy.exc import DBAPIError

DEADLOCK: Final = "40P01"
SERIALIZATION: Final = "40001"
LOCK_NOT_AVAILABLE: Final = "55P03"
OUT_OF_RANGE: Final = "22003"
QUERY_CANCELED: Final = "57014"
# A lock was waited for in vain, or a statement for too long.
WAITED: Final = frozenset({LOCK_NOT_AVAILABLE, QUERY_CANCELED})


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's code for the error, e.g. `55P03`; constraint names differ between engines."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return getattr(original, "sqlstate", None)
