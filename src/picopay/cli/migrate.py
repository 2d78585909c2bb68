"""`picopay migrate`."""

from typing import Annotated

import typer

from picopay import schema
from picopay.cli.context import DataDir, leased, load_settings, on_database, tell
from picopay.cli.errors import CommandFailed


def migrate(
    check: Annotated[bool, typer.Option("--check", help="Exit 1 unless it is current.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Bring the database schema up to date, as the owner of the schema.

    The owner needs CREATEROLE; or else the roles `picopay_app` and `picopay_readonly` made
    beforehand (NOLOGIN), and the first granted to it WITH ADMIN OPTION. A table that is in use is
    asked for again for a minute, so that others can go on, and then it is told. Each revision is
    a transaction of its own.

    Example: `DATABASE_URL=postgresql://… picopay migrate`
    """
    settings = load_settings()
    if settings.database_url is not None and settings.owner_url is not None:
        _migrate(settings.owner_url, settings.database_url, check=check)
        return
    with leased(settings, data_dir, create=not check) as lease:
        url = lease.servers.database_url
        _migrate(url, url, check=check)


def _migrate(owner_url: str, app_url: str, *, check: bool) -> None:
    if not check:
        on_database(owner_url, schema.upgrade(owner_url, app_url, tell))
    elif not on_database(app_url, schema.is_current(app_url)):
        raise CommandFailed("the database schema is not current: run `picopay migrate`")
    print("the database schema is current")
