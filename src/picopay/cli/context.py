"""What every command needs: settings, a database, one way to print and one way to fail."""

import asyncio
import secrets
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Final, TypeVar

import asyncpg
import typer
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from picopay import schema
from picopay.cli import misspelt
from picopay.cli.errors import CommandFailed, err
from picopay.embedded import status
from picopay.embedded.layout import Layout
from picopay.embedded.servers import Lease, acquire
from picopay.infra import tracing
from picopay.infra.db import ConnectionLost, Db
from picopay.infra.json import dump
from picopay.infra.logs import configure_for_commands
from picopay.infra.placeholders import SECRET_CHARACTERS_MIN, is_placeholder, is_short
from picopay.infra.settings import Settings
from picopay.infra.urls import sqlalchemy_url, without_secrets

T = TypeVar("T")

DataDir = Annotated[
    Path | None,
    typer.Option(help="Data directory of the embedded servers.  [default: .picopay]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

STOP_SECONDS_MAX: Final = 15
PAYMENT_SECRET: Final = "payment_webhook_secret"  # noqa: S105 - its file in the data directory


def load_settings() -> Settings:
    """Raises `CommandFailed` naming the first setting that is wrong."""
    configure_for_commands()
    for name, setting in misspelt.in_environment().items():
        err.print(f"[yellow]{name} is no setting: did you mean {setting}?[/yellow]")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        why = first["msg"].removeprefix("Value error, ")
        # What concerns several names them itself.
        name = f"{str(first['loc'][0]).upper()}: " if first["loc"] else ""
        raise CommandFailed(f"{name}{why}") from None


@contextmanager
def prepared(
    data_dir: Path | None, *, ephemeral: bool = False, create: bool = True
) -> Generator[tuple[Settings, Lease | None]]:
    """Settings that name a database with a current schema.

    Without `DATABASE_URL` the embedded servers of the data directory are used, started if need
    be, and left by the end; they stop when nobody uses them any more. Unless `create`, a directory
    that holds no database is refused: an empty one would prove nothing.
    """
    settings = load_settings()
    if settings.database_url is not None:
        _refuse_ephemeral(data_dir, ephemeral=ephemeral)
        await_current(settings)
        yield settings, None
        return
    with leased(settings, data_dir, ephemeral=ephemeral, create=create) as lease:
        yield _embedded(settings, lease), lease


@contextmanager
def leased(
    settings: Settings, data_dir: Path | None, *, ephemeral: bool = False, create: bool = True
) -> Generator[Lease]:
    """The embedded servers of the data directory, whatever their schema."""
    directory = (data_dir or settings.picopay_data_dir).absolute()
    temporary = ephemeral and data_dir is None
    if temporary:
        directory = Path(tempfile.mkdtemp(prefix="picopay-"))
    elif not create and not (directory / "postgres").exists():
        raise CommandFailed(
            f"there is no database in {directory}: start `picopay serve`, or give --data-dir"
        )
    lease = acquire(directory, ephemeral=ephemeral, on_progress=progress)
    try:
        yield lease
    finally:
        lease.release()
        lease.stopped(STOP_SECONDS_MAX)
        if temporary:
            shutil.rmtree(directory, ignore_errors=True)


def whereabouts(data_dir: Path | None) -> str:
    """Which database `prepared` will use, for people."""
    settings = load_settings()
    if settings.database_url is not None:
        url = sqlalchemy_url(settings.database_url)
        return f"the database {url.database} at {url.host or 'localhost'}, of DATABASE_URL"
    directory = (data_dir or settings.picopay_data_dir).absolute()
    if status.read(Layout(directory).status) is not None:
        return f"the database in {directory}"
    return (
        f"the database in {directory}, where no server is running: if the shop is elsewhere, give"
        " its --data-dir or DATABASE_URL"
    )


def _refuse_ephemeral(data_dir: Path | None, *, ephemeral: bool) -> None:
    if ephemeral:
        raise CommandFailed("DATABASE_URL is set: its database will not be deleted at the end")
    if data_dir is not None:
        err.print("[yellow]DATABASE_URL is set, so --data-dir is not used[/yellow]")


def progress(message: str) -> None:
    if err.is_terminal:
        tell(message)


def tell(message: str) -> None:
    err.print(f"[dim]{message}[/dim]", soft_wrap=True)


def _embedded(settings: Settings, lease: Lease) -> Settings:
    servers = lease.servers
    settings.database_url = servers.database_url
    settings.migration_database_url = None
    settings.redis_url = settings.redis_url or servers.redis_url
    settings.picopay_data_dir = servers.data_dir
    kept = partial(_kept, servers.data_dir)
    settings.app_api_key = settings.app_api_key or kept("api_key", "dev_")
    settings.admin_secret = settings.admin_secret or kept("admin_secret", "dev_")
    url = servers.database_url
    on_database(url, schema.upgrade(url, url))
    return settings


def check_tracing(settings: Settings) -> None:
    if settings.otel_exporter_otlp_endpoint is not None and not tracing.is_installed():
        raise CommandFailed("OTEL_EXPORTER_OTLP_ENDPOINT is set: install picopay[tracing] for it")


def with_payment_secret(settings: Settings) -> None:
    """For what signs or verifies payment callbacks: in development a missing secret is made.

    Raises `CommandFailed` in production, where several machines must be told the same one.
    """
    if not settings.uses_payment_webhook_secret:
        return
    known = settings.payment_webhook_secrets
    judge_secret("PAYMENT_WEBHOOK_SECRET", known, production=settings.production)
    if settings.production and not known:
        raise CommandFailed("PAYMENT_WEBHOOK_SECRET is missing: it verifies payment callbacks")
    if not known:
        directory = settings.picopay_data_dir
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.payment_webhook_secret = _kept(directory, PAYMENT_SECRET, "whsec_dev_")


def judge_secret(name: str, values: Sequence[str], *, production: bool) -> None:
    """Production refuses what everybody knows, and tells of what could be guessed."""
    if is_placeholder(values):
        if production:
            raise CommandFailed(f"{name} is a well-known placeholder: choose one of your own")
        err.print(f"[yellow]{name} is a well-known placeholder: not for production[/yellow]")
    elif production and is_short(values):
        why = f"is shorter than {SECRET_CHARACTERS_MIN} characters: it may be guessed"
        err.print(f"[yellow]{name} {why}[/yellow]")


def _kept(data_dir: Path, name: str, prefix: str) -> str:
    """A secret of the data directory: made once, so that what was copied keeps working."""
    path, draft = data_dir / name, data_dir / f"{name}.{secrets.token_hex(4)}"
    if not path.exists():
        draft.touch(mode=0o600)
        draft.write_text(f"{prefix}{secrets.token_urlsafe(24)}\n")
        with suppress(FileExistsError):  # whoever comes first; never half a key
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text().strip()


def await_current(settings: Settings) -> None:
    assert settings.database_url is not None
    if not on_database(settings.database_url, schema.is_current(settings.database_url)):
        raise CommandFailed("the database schema is not current: run `picopay migrate`")


def on_database(url: str, work: Coroutine[object, object, T]) -> T:
    """Run `work`; what the database of `url` has against it is told in one sentence."""
    whose = without_secrets(url)
    try:
        return asyncio.run(work)
    except schema.TablesInUse as error:
        raise CommandFailed(str(error)) from None
    except ConnectionLost:
        raise CommandFailed("the connection to the database was lost") from None
    except OSError as error:
        raise CommandFailed(f"the database cannot be reached: {error} ({whose})") from None
    except DBAPIError as error:
        reason = str(error.orig).splitlines()[0].rpartition(">: ")[2]
        raise CommandFailed(f"the database refused: {reason} ({whose})") from None
    except asyncpg.PostgresError as error:
        reason = str(error).splitlines()[0]
        raise CommandFailed(f"the database refused: {reason} ({whose})") from None


def with_db(
    data_dir: Path | None, work: Callable[[Db], Awaitable[T]], *, create: bool = False
) -> T:
    """Run one piece of work against the database of the settings."""
    with prepared(data_dir, create=create) as (settings, _):
        url = settings.database_url
        assert url is not None

        async def run() -> T:
            # A check of a large ledger takes its time.
            db = Db(url, pool_size=2, command_timeout_seconds=None)
            try:
                return await work(db)
            finally:
                await db.close()

        return on_database(url, run())


def show_json(value: object) -> None:
    """As the API would: UTF-8 whatever the terminal's encoding."""
    sys.stdout.buffer.write(dump(value) + b"\n")
