"""The database schema: every slice's tables, and the migrations that bring them about."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from picopay.access import tables as access
from picopay.catalog import tables as catalog
from picopay.charges import tables as charges
from picopay.fake_payments import tables as fake_payments
from picopay.idempotency import tables as idempotency
from picopay.infra.models import Base
from picopay.infra.sessions import APP_ROLE
from picopay.infra.sqlstates import LOCK_NOT_AVAILABLE, sqlstate
from picopay.infra.urls import sqlalchemy_url
from picopay.ledger import tables as ledger
from picopay.orders import tables as orders
from picopay.outbox import tables as outbox
from picopay.transfers import tables as transfers
from picopay.users import tables as users

T = TypeVar("T")

# Importing the slices' tables is what fills Base.metadata.
SLICES: Final = (
    *(access, catalog, charges, fake_payments, idempotency),
    *(ledger, orders, outbox, transfers, users),
)

# How long a migration waits for a table that is in use, and how often it asks for it again. All
# others wait behind it meanwhile: for less than any of them gives up after.
LOCK_TIMEOUT_MS: Final = 200
LOCK_PAUSE_SECONDS: Final = 1.0
LOCK_ATTEMPTS_MAX: Final = 60

# One migration at a time. It guards against two operators, not against lost money. Releases that
# knew no revision after 0010 waited for 7205759, with a snapshot: see `_alone`.
_MIGRATION_LOCK: Final = 7_205_760
# Whatever database or role say: an index takes its time, and a lost client holds no lock for hours.
_PATIENT: Final = {
    "lock_timeout": "0",
    "statement_timeout": "0",
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
ALONE_PAUSE_SECONDS: Final = 0.1


class TablesInUse(Exception):
    """Somebody holds a table that a revision changes."""

    def __init__(self) -> None:
        super().__init__(
            f"a table is in use, and was so {LOCK_ATTEMPTS_MAX} times: end what holds it, see"
            " pg_stat_activity (a ledger check reads for long), and run `picopay migrate` again;"
            " revisions that were reached stay"
        )


def config(connection: Connection | None = None) -> Config:
    settings = Config()
    settings.set_main_option("script_location", "picopay:migrations")
    settings.attributes["connection"] = connection
    return settings


def _tell_nobody(_message: str) -> None:
    pass


async def upgrade(
    owner_url: str, app_url: str, on_progress: Callable[[str], None] = _tell_nobody
) -> None:
    """Bring the schema up to date as its owner, and let the app's login take on the app's role.

    Each revision is a transaction of its own: what was reached stays, and the next run goes on
    from there. Raises `TablesInUse`.
    """
    login = sqlalchemy_url(app_url).username
    others = login if login != sqlalchemy_url(owner_url).username else None
    async with _alone(owner_url, on_progress) as ours:
        while True:
            await _prepare(ours, on_progress)
            if (reached := await _upgrade_by_one(owner_url, others, on_progress)) is None:
                break
            on_progress(f"the schema is at revision {reached}")


@asynccontextmanager
async def _alone(
    owner_url: str, on_progress: Callable[[str], None]
) -> AsyncGenerator[AsyncConnection]:
    """One upgrade at a time: a connection that holds the lock, in no transaction.

    Who waits inside the database for this lock has a snapshot, and an index that is built while
    others work waits for the end of that. So it is asked for again and again.
    """
    engine = create_async_engine(
        sqlalchemy_url(owner_url),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"server_settings": _PATIENT},
    )
    try:
        async with engine.connect() as connection:
            await _take_lock(connection, on_progress)
            yield connection
    finally:
        await engine.dispose()


async def _take_lock(connection: AsyncConnection, on_progress: Callable[[str], None]) -> None:
    asked = text("SELECT pg_try_advisory_lock(:id)").bindparams(id=_MIGRATION_LOCK)
    told = False
    while not (await connection.execute(asked)).scalar_one():
        if not told:
            on_progress("another migration is at work: waiting for its end")
        told = True
        await asyncio.sleep(ALONE_PAUSE_SECONDS)


async def _prepare(connection: AsyncConnection, on_progress: Callable[[str], None]) -> None:
    """Run what the next revision's `BEFOREHAND` says: while all others go on, in no transaction."""
    following = _following(await connection.run_sync(_revision))
    if following is None:
        return
    script = ScriptDirectory.from_config(config()).get_revision(following)
    for statement in getattr(script.module, "BEFOREHAND", ()):
        on_progress(f"before revision {following}: {statement}")
        await connection.execute(text(statement))


async def _upgrade_by_one(
    owner_url: str, login: str | None, on_progress: Callable[[str], None]
) -> str | None:
    """The revision that was reached, or None at the last one.

    Whoever waits for a table makes all others wait behind it, so it lets go after a while, for them
    to go on, and asks again.
    """
    for attempt in range(1, LOCK_ATTEMPTS_MAX + 1):
        try:
            return await as_owner(owner_url, lambda connection: _step(connection, login))
        except DBAPIError as error:
            if sqlstate(error) != LOCK_NOT_AVAILABLE:
                raise
        on_progress(f"a table is in use: attempt {attempt} of {LOCK_ATTEMPTS_MAX}")
        await asyncio.sleep(LOCK_PAUSE_SECONDS)
    raise TablesInUse


def _step(connection: Connection, login: str | None) -> str | None:
    connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
    following = _following(_revision(connection))
    if following is not None:
        command.upgrade(config(connection), following)
    elif login is not None:
        quoted = connection.dialect.identifier_preparer.quote(login)
        connection.execute(text(f"GRANT {APP_ROLE} TO {quoted}"))
    return following


def _following(revision: str | None) -> str | None:
    """None at the last one, and at those that this code does not know."""
    later = None
    for script in ScriptDirectory.from_config(config()).walk_revisions():  # the last one first
        if script.revision == revision:
            return later
        later = script.revision
    return later if revision is None else None


async def downgrade(owner_url: str, revision: str) -> None:
    await as_owner(owner_url, lambda c: command.downgrade(config(c), revision))


async def is_current(url: str) -> bool:
    """Whether this code can run on it: on its own revision, and on later ones.

    A migration leaves the release before it working. So servers of that release may start while
    others are being replaced, and again when they must be brought back.
    """
    revision = await as_owner(url, _revision)
    head = ScriptDirectory.from_config(config()).get_current_head()
    return revision == head or _is_later(revision)


def _is_later(revision: str | None) -> bool:
    """What this code does not know was made by a later one."""
    known = {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}
    return revision is not None and revision not in known


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


async def differences(url: str) -> list[Any]:
    """What autogenerate would still change: nothing, when models and migrations agree."""
    return await as_owner(
        url, lambda c: compare_metadata(MigrationContext.configure(c), Base.metadata)
    )


async def app_can_change_postings(url: str) -> bool:
    """Whether the role that the app takes on could rewrite history. Production refuses that."""
    query = text(
        "SELECT has_table_privilege(:role, 'postings', 'UPDATE')"
        " OR has_any_column_privilege(:role, 'postings', 'UPDATE')"
        " OR has_table_privilege(:role, 'postings', 'DELETE')"
        " OR has_table_privilege(:role, 'postings', 'TRUNCATE')"
    )
    return await as_owner(url, lambda c: bool(c.execute(query, {"role": APP_ROLE}).scalar_one()))


async def as_owner(url: str, work: Callable[[Connection], T]) -> T:
    """Run `work` in one transaction of that login's own, without taking on the app's role."""
    engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()
