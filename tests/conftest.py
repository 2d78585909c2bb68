"""Real servers for the tests: one embedded PostgreSQL and Valkey a run, a database a worker."""

import asyncio
import fcntl
import hashlib
import os
import signal
import tempfile
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
)
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx2
import hypothesis
import pytest
import structlog
from fastapi import FastAPI
from redis.asyncio import Redis
from tests.forks import run_command
from tests.processes import ADMIN_SECRET, API_KEY, Site, clean_environment

from picopay import schema
from picopay.app import create_app
from picopay.embedded.servers import Servers, acquire
from picopay.infra.db import Db
from picopay.infra.settings import Settings

# Examples are drawn slowly on a busy machine: no verdict on what is tested.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")

# Its own default draws every frame's source and variables, and takes seconds for one exception.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)

# A shell lets what runs in its background ignore interrupts, and all that it starts inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


_UNIT = Path(__file__).with_name("unit")
_TIDY = Path(__file__).with_name("tidy")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """What the tests of a file share is made once, in one process; who kills shares nothing.

    However they are shuffled within: while some measure, by turns, the others are at what only
    computes, since nobody may kill meanwhile. What runs beside them all is looked at last.
    """
    for item in items:
        if _uses(item, "quiet"):
            item.add_marker(pytest.mark.xdist_group("quiet"))
        elif not any(item.iter_markers("xdist_group")) and not any(item.iter_markers("kill")):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
    yield
    for item in items:
        _take_the_groups_name(item)
    items.sort(key=_rank)


def _take_the_groups_name(item: pytest.Item) -> None:
    """As xdist has it: it looks for the group in a name that pytest since 9.2 keeps elsewhere."""
    if (named := vars(item).get("_nodeid")) is not None:
        item._id = type(item.id).parse(named)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def _rank(item: pytest.Item) -> int:
    if _uses(item, "short_soak"):
        return 4
    if _uses(item, "quiet"):
        return 1
    if any(item.iter_markers("kill")) or _uses(item, "noisy"):
        return 3
    return 2 if item.path.is_relative_to(_UNIT) or item.path.is_relative_to(_TIDY) else 0


def _uses(item: pytest.Item, fixture: str) -> bool:
    return fixture in getattr(item, "fixturenames", ())


@dataclass(frozen=True)
class Stores:
    """Where this worker's data lives; `owner_url` may change history, as tampering tests do."""

    database_url: str
    redis_url: str

    @property
    def owner_url(self) -> str:
        return self.database_url


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """One cluster for all workers of a run, gone when the last of them ends."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid4().hex)
    name = hashlib.sha256(run.encode()).hexdigest()[:12]
    directory = Path(tempfile.gettempdir()) / f"picopay-tests-{name}"
    with acquire(directory, ephemeral=True) as lease:
        yield lease.servers


@pytest.fixture(scope="session")
def stores(servers: Servers) -> Stores:
    """A migrated database and a Redis database of this worker's own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    with _one_at_a_time(servers.data_dir):
        asyncio.run(_make_database(servers.database_url, worker))
    base, _, _ = servers.database_url.rpartition("/")
    redis_base, _, _ = servers.redis_url.rpartition("/")
    return Stores(f"{base}/{worker}", f"{redis_base}/{int(worker.removeprefix('gw')) % 16}")


@contextmanager
def _one_at_a_time(directory: Path) -> Generator[None]:
    with _locked(directory / "template.lock", fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(path: Path, how: int) -> Generator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, how)
        yield


@contextmanager
def _alone(folder: Path, what: str) -> Generator[None]:
    """The gate is held while that is waited for, so that the others do not take turns for ever."""
    gate, among = folder / f"{what}.gate", folder / f"{what}.lock"
    with _locked(gate, fcntl.LOCK_EX), _locked(among, fcntl.LOCK_EX):
        yield


@contextmanager
def _among(folder: Path, what: str) -> Generator[None]:
    with ExitStack() as held:
        with _locked(folder / f"{what}.gate", fcntl.LOCK_EX):
            held.enter_context(_locked(folder / f"{what}.lock", fcntl.LOCK_SH))
        yield


@pytest.fixture
def quiet(run_folder: Path) -> Iterator[None]:
    """For who measures: no other worker's test starts and kills servers meanwhile."""
    with _alone(run_folder, "kills"):
        yield


@pytest.fixture
def noisy(run_folder: Path) -> Iterator[None]:
    """For who starts and kills servers: not while another worker measures."""
    with _among(run_folder, "kills"):
        yield


@pytest.fixture(autouse=True)
def _computing(request: pytest.FixtureRequest, run_folder: Path) -> Iterator[None]:
    """Whoever runs beside who measures, and may be asked to stand still."""
    if {"quiet", "noisy"} & set(request.fixturenames):
        yield
        return
    with _among(run_folder, "computing"):
        yield


@pytest.fixture
def still(quiet: None, run_folder: Path) -> Callable[[], AbstractContextManager[None]]:
    """For who measured, and missed: meanwhile no other worker's test goes on."""
    return lambda: _alone(run_folder, "computing")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all workers of a run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


async def _make_database(url: str, name: str) -> None:
    """Cloned from a template that is migrated once a run."""
    connection = await asyncpg.connect(url)
    try:
        names = {row[0] for row in await connection.fetch("SELECT datname FROM pg_database")}
        template_url = url.rpartition("/")[0] + "/template"
        if "template" not in names:
            await connection.execute("CREATE DATABASE template")
            await schema.upgrade(template_url, template_url)
        await connection.execute(f"DROP DATABASE IF EXISTS {name}")
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template")
    finally:
        await connection.close()


TABLES = """accounts, postings, users, charges, charge_refunds, idempotency_keys, api_keys,
api_key_uses, transfers, products, stock_moves, fake_payments, orders, order_items, order_payments,
order_refunds, order_events, outbox_events, outbox_queue, outbox_consumed, dead_letters,
dead_letter_audits, worker_duties"""
_FILLED = " UNION ALL ".join(
    f"SELECT '{table}', pg_relation_size('{table}') WHERE EXISTS (SELECT FROM {table})"  # noqa: S608 - ours
    for table in TABLES.replace("\n", " ").split(", ")
)
_SMALL_BYTES = 100_000


class Owner:
    """A connection that may do what the app's role may not, lent to one test after the other.

    To connect takes as long as ten requests. Who breaks it leaves the next a new one.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None

    async def fresh(self) -> asyncpg.Connection:
        """As if it were new: without transactions, locks and settings of who had it before."""
        if self._connection is not None:
            try:
                await self._connection.reset(timeout=5)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                self.close()
        if self._connection is None:
            self._connection = await asyncpg.connect(self._url)
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None


@pytest.fixture(scope="session")
async def lent(stores: Stores) -> AsyncIterator[Owner]:
    owner = Owner(stores.owner_url)
    yield owner
    owner.close()


@pytest.fixture(scope="session")
async def flushing(stores: Stores) -> AsyncIterator[Redis]:
    redis: Redis = Redis.from_url(stores.redis_url)  # pyright: ignore[reportUnknownMemberType] - its own **kwargs
    yield redis
    await redis.aclose()


@pytest.fixture
async def clean(stores: Stores, lent: Owner, flushing: Redis) -> Stores:
    """Both stores, emptied: use cases commit, so rolling back could not isolate tests."""
    await empty(await lent.fresh())
    await flushing.execute_command("FLUSHDB")  # pyright: ignore[reportUnknownMemberType] - likewise
    return stores


async def empty(owner: asyncpg.Connection) -> None:
    """Forget all that was written, and wait for who is still writing."""
    # Asking is a hundred times cheaper than emptying what is empty.
    if filled := {row[0]: row[1] for row in await owner.fetch(_FILLED)}:
        await owner.execute(_emptying(filled))


def _emptying(filled: Mapping[str, int]) -> str:
    """Waits for whoever still has a transaction open there, as TRUNCATE does.

    But that makes new files of a table and each of its indexes, and all connections plan their
    statements anew: of a few rows it costs ten times as much as to delete them.
    """
    small = [table for table, size in filled.items() if size <= _SMALL_BYTES]
    large = filled.keys() - small
    steps = [
        "BEGIN",
        f"LOCK TABLE {', '.join(filled)}",
        "SET LOCAL session_replication_role = replica",  # all that refers to a row goes too
        *(f"DELETE FROM {table}" for table in small),  # noqa: S608 - ours
        *([f"TRUNCATE {', '.join(large)} CASCADE"] if large else []),
        "COMMIT",
    ]
    return "; ".join(steps)


@pytest.fixture
async def owner(clean: Stores, lent: Owner) -> AsyncIterator[asyncpg.Connection]:
    """A connection that may do what the app's role may not."""
    yield await lent.fresh()
    await lent.fresh()


@pytest.fixture
async def alone(owner: asyncpg.Connection) -> None:
    """What earlier tests have left open is closed: for who counts connections."""
    await owner.execute(
        """SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity
            WHERE application_name = 'picopay' AND datname = current_database()"""
    )


@pytest.fixture
async def db(clean: Stores) -> AsyncIterator[Db]:
    db = Db(clean.database_url)
    yield db
    await db.close()


@pytest.fixture
def settings(clean: Stores) -> Settings:
    return settings_of(clean)


def settings_of(stores: Stores) -> Settings:
    return Settings(
        database_url=stores.database_url,
        redis_url=stores.redis_url,
        app_api_key=API_KEY,
        admin_secret=ADMIN_SECRET,
        picopay_worker=False,
        picopay_env="development",  # pyright: ignore[reportArgumentType] - as from the environment
    )


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app) as client:
        yield client


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncGenerator[httpx2.AsyncClient]:
    """Calls the application with every scope; `headers={"X-API-Key": ""}` to call without."""
    transport = httpx2.ASGITransport(app=app)
    headers = {"X-API-Key": API_KEY}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://picopay", headers=headers, timeout=30
    ) as client:
        yield client


@asynccontextmanager
async def serving(settings: Settings, **changed: object) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of an application of its own, with some settings changed."""
    app = create_app(settings.model_copy(update=changed))
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield client


@pytest.fixture(scope="session")
def made(run_folder: Path) -> Path:
    """A data directory whose database was made once a run, with the schema: to be copied."""
    directory = run_folder / "made"
    with _one_at_a_time(run_folder):
        if not directory.exists():
            command = ["migrate", "--data-dir", str(directory)]
            assert run_command(command, clean_environment(), cwd=run_folder).returncode == 0
    return directory


@pytest.fixture
def site(tmp_path: Path, made: Path, noisy: None) -> Iterator[Site]:
    """A data directory of the test's own, with servers that it may kill."""
    site = Site.copied(made, tmp_path)
    yield site
    site.close()
