"""What SQLAlchemy does not tell of the driver's connections."""

import asyncpg
from sqlalchemy.exc import DBAPIError

from picopay.infra.sqlstates import is_away


def is_lost(error: BaseException, driver: asyncpg.Connection) -> bool:
    """Whether the connection is of no use any more."""
    if isinstance(error, TimeoutError) or is_away(error):  # a command that nobody answers any more
        return True
    if isinstance(error, asyncpg.InternalClientError):
        # The driver has heard the server's last words, but not yet that the connection is closed.
        return True
    return driver.is_closed() and isinstance(error, (OSError, DBAPIError, asyncpg.InterfaceError))
