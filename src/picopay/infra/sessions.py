"""What PostgreSQL is told about each of our sessions: its role, and how long it may be silent."""

from typing import Any, Final, NamedTuple

APP_ROLE: Final = "picopay_app"


class Kind(NamedTuple):
    """What sessions of a pool are for, as metrics name it, and what PostgreSQL is told of them."""

    name: str
    settings: dict[str, str]


# A session that hangs gives its locks back, whoever froze it and wherever in a transaction: while
# it is idle, while a statement runs, while the network is silent.
_ALL: Final = {
    "application_name": "picopay",
    "idle_in_transaction_session_timeout": "10s",
    "statement_timeout": "12s",
    "tcp_user_timeout": "10s",
    "tcp_keepalives_idle": "5s",
    "tcp_keepalives_interval": "2s",
    "tcp_keepalives_count": "3",
    "timezone": "UTC",
}
REQUESTS: Final = Kind("requests", _ALL)

# For work that others' work waits for. Its statements look rows up by key: they are planned once,
# since planning costs as much as running them, and not as scans because a table was small then.
_RESERVED: Final = {
    "lock_timeout": "250ms",
    "statement_timeout": "3s",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
}
RESERVED: Final = Kind("reserved", _ALL | _RESERVED)

# For work that comes back later: of a row that is locked for long it lets go, for the others' sake.
# Statistics of a queue tell of another hour: nothing of it is ever to be found by reading all.
BACKGROUND: Final = Kind("background", _ALL | {"lock_timeout": "250ms", "enable_seqscan": "off"})

# PostgreSQL counts a statement's time only from when it has all of it; since version 17 it can
# count a transaction's.
_LIMIT_TRANSACTION: Final = (
    "SELECT set_config(name, '{}', {}) FROM pg_settings WHERE name = 'transaction_timeout'"
)
# One moment of the whole database, read-only, for as long as a check takes.
BEGIN_SNAPSHOT: Final = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0;"
    " SET LOCAL idle_in_transaction_session_timeout = 0;" + _LIMIT_TRANSACTION.format("0", "true")
)


def prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 - SQLAlchemy's adapter
    """Take on the app's role, which cannot change a posting."""
    cursor = connection.cursor()
    try:
        cursor.execute(f"SET ROLE {APP_ROLE}")
        cursor.execute(_LIMIT_TRANSACTION.format("30s", "false"))
    finally:
        cursor.close()
