"""`picopay serve`: the API, on servers of its own unless told of others."""

import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final, NoReturn
from uuid import NAMESPACE_URL, uuid5

import typer
import uvicorn
from rich.console import Console
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.statreload import StatReload

from picopay import __version__, schema
from picopay.access import service as access
from picopay.access.model import DEFAULT_MERCHANT
from picopay.cli import shared_metrics
from picopay.cli.context import (
    PAYMENT_SECRET,
    DataDir,
    check_tracing,
    judge_secret,
    on_database,
    prepared,
    with_payment_secret,
)
from picopay.cli.errors import CommandFailed
from picopay.embedded.servers import Servers
from picopay.infra import environment, logs
from picopay.infra.db import Db
from picopay.infra.logs import log
from picopay.infra.settings import Settings
from picopay.kernel.money import Money
from picopay.users import service as users
from picopay.users.model import DepositCommand

GRACE_SECONDS: Final = 30
SOURCE: Final = Path(__file__).parents[1]
# A server process that says nothing for so long is killed and replaced. It also says nothing while
# it starts, which on a busy machine takes several seconds.
START_SECONDS_MAX: Final = 60
KEEP_ALIVE_SECONDS: Final = 65  # longer than load balancers keep theirs
BACKLOG_MAX: Final = 4096  # connections that nobody has accepted yet
# What a client does not take for so long, or a network that is gone, ends the connection.
UNTAKEN_MS_MAX: Final = 30_000
DEMO_USER: Final = 1
DEMO_MONEY: Final = Money(100_000, "USD")
_DEMO_DEPOSIT: Final = uuid5(NAMESPACE_URL, "picopay/demo-deposit")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Server processes.")] = 1,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="API only: `picopay worker` does the rest.")
    ] = False,
    data_dir: DataDir = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Delete the data at the end.")
    ] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start anew whenever PicoPay's source changes.")
    ] = False,
) -> None:
    """Run the API. Without `DATABASE_URL` it brings its own PostgreSQL and Valkey.

    Example: `picopay serve --port 8000 --workers 2`
    """
    if reload and workers > 1:
        raise CommandFailed("--reload is for one server process: leave --workers out")
    signal.signal(signal.SIGTERM, _stop)
    with (
        _listening(host, port) as listener,
        prepared(data_dir, ephemeral=ephemeral) as (settings, lease),
    ):
        check_tracing(settings)
        servers = lease.servers if lease else None
        settings.picopay_worker = settings.picopay_worker and not no_worker
        _refuse_without_provider(settings)
        assert settings.database_url is not None
        on_database(settings.database_url, _ready(settings, servers))
        with_payment_secret(settings)
        if "picopay_url" not in settings.model_fields_set:
            settings.picopay_url = _own_url(listener)
        logs.configure(settings.log_level, settings.log_format)
        if lease is not None:
            lease.watch(lambda message: log.warning("embedded.keeper", message=message))
        listener.listen(BACKLOG_MAX)  # who comes from here on waits for the server, and is served
        _banner(settings, servers, listener)
        _run(settings, listener, workers, reload=reload)


def _stop(_signal: int, _frame: object) -> NoReturn:
    """Unwinds whatever is under way, so that no child is left behind."""
    raise SystemExit(0)


async def _ready(settings: Settings, servers: Servers | None) -> None:
    """Raises `CommandFailed` for what production does not tolerate."""
    db = Db.of(settings)
    try:
        await _refuse_unsafe(settings, db)
        if servers is not None:
            await users.create(db, DEMO_USER)
            await users.deposit(
                db, DepositCommand(_DEMO_DEPOSIT, DEFAULT_MERCHANT, DEMO_USER, DEMO_MONEY, None)
            )
    finally:
        await db.close()


def _refuse_without_provider(settings: Settings) -> None:
    """No order would ever be paid."""
    elsewhere = "picopay_url" in settings.model_fields_set
    if settings.provider == "fake" and not (settings.fake_payment_enabled or elsewhere):
        raise CommandFailed(
            "PAYMENT_PROVIDER is fake, but there is none: set FAKE_PAYMENT_ENABLED=true,"
            " or PICOPAY_URL to a server that has one"
        )


async def _refuse_unsafe(settings: Settings, db: Db) -> None:
    for name, values in _secrets(settings).items():
        judge_secret(name, values, production=settings.production)
    if not settings.production:
        return
    if settings.app_api_key is None and not await access.any_active(db):
        raise CommandFailed(
            "no API key exists: set APP_API_KEY, or make one with `picopay keys create`"
        )
    if not settings.transaction_webhook_secrets and not settings.transaction_webhook_unsigned:
        raise CommandFailed(
            "TRANSACTION_WEBHOOK_SECRET is missing: set it, or TRANSACTION_WEBHOOK_UNSIGNED=true"
        )
    if settings.admin_secret is None:
        raise CommandFailed("ADMIN_SECRET is missing: set it")
    assert settings.database_url is not None
    if await schema.app_can_change_postings(settings.database_url):
        raise CommandFailed(
            "the database role picopay_app may change postings: revoke UPDATE, DELETE and TRUNCATE"
        )


def _secrets(settings: Settings) -> dict[str, list[str]]:
    """By setting; `with_payment_secret` has looked at those of payments."""
    return {
        "APP_API_KEY": [settings.app_api_key] if settings.app_api_key else [],
        "TRANSACTION_WEBHOOK_SECRET": settings.transaction_webhook_secrets,
        "ADMIN_SECRET": [settings.admin_secret] if settings.admin_secret else [],
    }


@contextmanager
def _listening(host: str, port: int) -> Generator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_MS_MAX)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise CommandFailed(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another --port or --host"
            ) from None
        listener.set_inheritable(True)
        yield listener


def _run(settings: Settings, listener: socket.socket, workers: int, *, reload: bool) -> None:
    environment.export(settings)
    config = uvicorn.Config(
        "picopay.cli.application:application",
        factory=True,
        workers=workers,
        reload=reload,
        reload_dirs=[str(SOURCE)] if reload else None,
        loop="picopay.infra.accepting:Loop",
        http="picopay.infra.protocol:HttpProtocol",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG_MAX,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_worker_healthcheck=START_SECONDS_MAX,
    )
    server = uvicorn.Server(config)
    if reload:
        with shared_metrics.shared():
            StatReload(config, target=server.run, sockets=[listener]).run()
        return
    if workers == 1:
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        if not server.started:
            raise CommandFailed("the server could not start; the log says why")
        return
    with shared_metrics.shared():
        Multiprocess(config, sockets=[listener]).run()


def _own_url(listener: socket.socket) -> str:
    """Where this machine reaches what listens there, on every address or on one."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if listener.family is socket.AF_INET else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _banner(settings: Settings, servers: Servers | None, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0', '::') else host}:{port}"  # noqa: S104 - compared, not bound
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"\n[bold]PicoPay {__version__}[/bold]  {settings.picopay_env}")
    docs = f"    docs {url}/docs" if settings.api_docs else ""
    console.print(f"  API        {url}{docs}    metrics {url}/metrics")
    console.print(f"  Data       {_data(settings, servers)}")
    console.print(f"  Payments   {settings.provider}{_callbacks(settings)}")
    if servers is None:
        console.print()
        return
    console.print(f"  API key    {settings.app_api_key}")
    console.print(f"  Admin      {settings.admin_secret}    (X-Admin-Secret)")
    console.print("\n  Charge user 1 (send it twice: it charges once):\n")
    console.print(
        f"  curl -X POST {url}/charge -H 'X-API-Key: {settings.app_api_key}' \\\n"
        "    -H 'Idempotency-Key: 6f1c9c1e-3a52-4c53-9c1f-2b7f6a0d9e11' \\\n"
        "    -H 'Content-Type: application/json' \\\n"
        """    -d '{"user_id": 1, "amount": 100.0, "currency": "USD"}'\n"""
    )


def _callbacks(settings: Settings) -> str:
    if not settings.uses_payment_webhook_secret:
        return ""
    whose = "of the fake provider " if settings.provider == "fake" else ""
    return f"; callbacks {whose}are signed with {_signed_with(settings)}"


def _signed_with(settings: Settings) -> str:
    kept = settings.picopay_data_dir / PAYMENT_SECRET
    generated = kept.exists() and kept.read_text().strip() == settings.payment_webhook_secret
    return str(kept) if generated else "PAYMENT_WEBHOOK_SECRET"


def _data(settings: Settings, servers: Servers | None) -> str:
    if servers is None:
        return "the PostgreSQL of DATABASE_URL"
    fate = "deleted at the end; commands need --data-dir" if servers.ephemeral else "kept"
    return f"{settings.picopay_data_dir} ({fate}), embedded PostgreSQL and Valkey"
