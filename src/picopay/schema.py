"""The database schema: every slice's tables, and the migrations that bring them about."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from picopay.access import tables as access
from picopay.catalog import tables as catalog
from picopay.charges import tables as charges
from picopay.fake_payments import tables as fake_payments
from picopay.idempotency import tables as idempotency
from picopay.infra.models import Base
from picopay.infra.sessions import APP_ROLE
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

# One migration at a time. It guards against two operators, not against lost money.
_MIGRATION_LOCK: Final = 7_205_759


def config(connection: Connection | None = None) -> Config:
    settings = Config()
    settings.set_main_option("script_location", "picopay:migrations")
    settings.attributes["connection"] = connection
    return settings


async def upgrade(owner_url: str, app_url: str) -> None:
    """Bring the schema up to date as its owner, and let the app's login take on the app's role."""
    login = sqlalchemy_url(app_url).username

    def work(connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _MIGRATION_LOCK})
        if not _is_later(_revision(connection)):
            command.upgrade(config(connection), "head")
        if login is not None and login != sqlalchemy_url(owner_url).username:
            quoted = connection.dialect.identifier_preparer.quote(login)
            connection.execute(text(f"GRANT {APP_ROLE} TO {quoted}"))

    await as_owner(owner_url, work)


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
