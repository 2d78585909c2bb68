"""What PostgreSQL says when it can do nothing for anybody, and when the fault is the request's."""

import asyncpg
import pytest

from picopay.infra.sqlstates import is_away


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.ConnectionDoesNotExistError,
        asyncpg.AdminShutdownError,
        asyncpg.CannotConnectNowError,
        asyncpg.TooManyConnectionsError,
        asyncpg.DiskFullError,
        asyncpg.OutOfMemoryError,
        asyncpg.ReadOnlySQLTransactionError,
    ],
)
def test_a_database_that_can_do_nothing_is_away(error: type[asyncpg.PostgresError]) -> None:
    assert is_away(error())


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UniqueViolationError,
        asyncpg.DeadlockDetectedError,
        asyncpg.LockNotAvailableError,
        asyncpg.QueryCanceledError,
        asyncpg.InvalidTransactionStateError,
        asyncpg.InFailedSQLTransactionError,
    ],
)
def test_a_database_that_refuses_one_statement_is_there(
    error: type[asyncpg.PostgresError],
) -> None:
    assert not is_away(error())


def test_what_is_not_postgresqls_says_nothing_of_it() -> None:
    assert not is_away(ValueError())
