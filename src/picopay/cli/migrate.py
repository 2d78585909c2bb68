"""`picopay migrate`."""

import asyncio
from typing import Annotated

import typer

from picopay import schema
from picopay.cli.context import CommandFailed, DataDir, load_settings, prepared


def migrate(
    check: Annotated[bool, typer.Option("--check", help="Exit 1 unless it is current.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Bring the database schema up to date, as the owner of the schema.

    Example: `DATABASE_URL=postgresql://… picopay migrate`
    """
    settings = load_settings()
    if settings.database_url is None or settings.owner_url is None:
        with prepared(data_dir):  # embedded servers are always brought up to date
            print("the embedded database is current")
        return
    try:
        if check and not asyncio.run(schema.is_current(settings.database_url)):
            raise CommandFailed("the database schema is not current: run `picopay migrate`")
        if not check:
            asyncio.run(schema.upgrade(settings.owner_url, settings.database_url))
    except OSError as error:
        raise CommandFailed(f"the database cannot be reached: {error}") from None
    print("the database schema is current")
