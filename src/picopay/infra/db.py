"""The database: a pool, transactions that begin and end in one place, and what can go wrong.

`Db` begins transactions, `Tx` is an open one. A function that takes `db` owns a transaction, one
that takes `tx` joins its caller's, and nobody else writes BEGIN, COMMIT or ROLLBACK.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from time import monotonic
from typing import Final, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import Pool

from picopay.infra import metrics, pools, sessions
from picopay.infra.driver import is_lost
from picopay.infra.logs import log
from picopay.infra.settings import Settings
from picopay.infra.sqlstates import PASSING, sqlstate
from picopay.infra.tx import Tx
from picopay.infra.urls import sqlalchemy_url
from picopay.kernel.errors import Refused

T = TypeVar("T")

RESERVED_POOL_SIZE: Final = 16
CONNECT_TIMEOUT_SECONDS: Final = 5
POOL_TIMEOUT_SECONDS: Final = 5
CLOSE_TIMEOUT_SECONDS: Final = 5
# A connection that does not answer is given up a little after the server would have given up the
# statement; and BEGIN, COMMIT and ROLLBACK have nothing to wait for but the disk.
COMMAND_TIMEOUT_SECONDS: Final = 15
RESERVED_TIMEOUT_SECONDS: Final = 4
BOUNDARY_TIMEOUT_SECONDS: Final = 5
RETRIES_MAX: Final = 5
# How long a lost database is waited for, before callers are told so.
LOST_DATABASE_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 0.1


class DatabaseUnavailable(Refused):
    code = "database-unavailable"


class OutcomeUnknown(Refused):
    """The database was lost during COMMIT and stayed lost; `<kind>_id` is what to look up."""

    code = "outcome-unknown"

    def __init__(self, kind: str, resource_id: UUID) -> None:
        super().__init__(
            f"the database was lost while the {kind} was being committed: look it up by its id, "
            "or repeat the request with the same idempotency key",
            **{f"{kind}_id": resource_id},
        )


class ConnectionLost(Exception):
    """The connection broke before COMMIT was sent: nothing was written."""


class CommitInDoubt(Exception):
    """The connection broke during COMMIT: what was written must be looked up."""


class Db:
    """The pool of connections. Each takes on the app's role, which cannot change a posting."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        max_overflow: int = 20,
        command_timeout_seconds: float | None = COMMAND_TIMEOUT_SECONDS,
        session: sessions.Kind = sessions.REQUESTS,
    ) -> None:
        # AUTOCOMMIT means that SQLAlchemy sends no BEGIN of its own; `begin` does.
        self._engine = create_async_engine(
            sqlalchemy_url(url),
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=POOL_TIMEOUT_SECONDS,
            pool_use_lifo=True,
            hide_parameters=True,  # what was sent to us stands in them; errors are logged
            connect_args={
                "timeout": CONNECT_TIMEOUT_SECONDS,
                "command_timeout": command_timeout_seconds,
                "server_settings": session.settings,
            },
        )
        event.listen(self._engine.sync_engine, "connect", sessions.prepare)
        self._waits = pools.watch(session.name, self._engine, pool_size + max_overflow)
        self.on_lost: Callable[[], None] = lambda: None  # told of each broken connection
        self._closing: set[asyncio.Task[None]] = set()

    @classmethod
    def of(cls, settings: Settings) -> "Db":
        """For requests."""
        assert settings.database_url is not None
        return cls(
            settings.database_url,
            pool_size=settings.db_pool_size,
            max_overflow=settings.db_max_overflow,
        )

    @classmethod
    def reserved(cls, settings: Settings) -> "Db":
        """For what must go on while requests wait for locks: lanes of charges, keys, health."""
        assert settings.database_url is not None
        return cls(
            settings.database_url,
            # None beyond those that are kept: to connect takes longer than most of what it is for.
            pool_size=RESERVED_POOL_SIZE,
            max_overflow=0,
            command_timeout_seconds=RESERVED_TIMEOUT_SECONDS,
            session=sessions.RESERVED,
        )

    @property
    def engine(self) -> AsyncEngine:
        return self._engine

    @asynccontextmanager
    async def begin(self, *, lock_timeout_ms: int | None = None) -> AsyncGenerator[Tx]:
        """One READ COMMITTED transaction: commits at the end, rolls back on any exception.

        Raises `DatabaseUnavailable` when no connection can be had, `ConnectionLost` or
        `CommitInDoubt` when one breaks.
        """
        begin = "BEGIN"
        if lock_timeout_ms is not None:
            begin += f"; SET LOCAL lock_timeout = {lock_timeout_ms}"
        async with (
            self._connection() as connection,
            self.transaction(connection, begin, lambda: "COMMIT") as tx,
        ):
            yield tx

    @asynccontextmanager
    async def transaction(
        self, connection: AsyncConnection, begin: str | None, commit: Callable[[], str]
    ) -> AsyncGenerator[Tx]:
        """A transaction on a connection of the caller's, with commands of the caller's."""
        pool = self._engine.sync_engine.pool
        driver = await _driver_of(connection)
        try:
            if begin is not None:
                await driver.execute(begin, timeout=BOUNDARY_TIMEOUT_SECONDS)
            yield Tx(connection, driver)
        except BaseException as error:
            if is_lost(error, driver):
                await self._give_up(connection, driver, pool)
                raise ConnectionLost(str(error)) from error
            await _roll_back(connection, driver)
            raise
        await self._commit(connection, driver, pool, commit())

    async def _commit(
        self, connection: AsyncConnection, driver: asyncpg.Connection, pool: Pool, command: str
    ) -> None:
        try:
            tag = await driver.execute(command, timeout=BOUNDARY_TIMEOUT_SECONDS)
            assert tag == "COMMIT", "an aborted transaction answers ROLLBACK"
        except BaseException as error:
            if isinstance(error, asyncpg.PostgresError) and not is_lost(error, driver):
                await connection.invalidate()
                raise
            await self._give_up(connection, driver, pool)
            metrics.commits_in_doubt.inc()
            log.warning("database.commit_in_doubt", error=str(error))
            raise CommitInDoubt(str(error)) from error

    async def roll_back(self, connection: AsyncConnection) -> None:
        await _roll_back(connection, await _driver_of(connection))

    async def _give_up(
        self, connection: AsyncConnection, driver: asyncpg.Connection, pool: Pool
    ) -> None:
        driver.terminate()  # a goodbye would be waited for
        await connection.invalidate()
        await self._forget(pool)

    async def _forget(self, pool: Pool) -> None:
        """After one broken connection, trust none of the idle ones: a restart broke them all.

        Closed in the background, and in use when given back, for the server's `max_connections`.
        """
        if pool is not self._engine.sync_engine.pool:
            return
        self.on_lost()
        await self._engine.dispose(close=False)
        closing = asyncio.create_task(pools.drain(pool, CLOSE_TIMEOUT_SECONDS))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[Tx]:
        """A connection for single read-only statements: no BEGIN, no COMMIT, two trips saved."""
        pool = self._engine.sync_engine.pool
        async with self._connection() as connection:
            driver = await _driver_of(connection)
            try:
                yield Tx(connection, driver)
            except Exception as error:
                if not is_lost(error, driver):
                    raise
                await self._give_up(connection, driver, pool)
                raise ConnectionLost(str(error)) from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[Tx]:
        """One moment of the whole database, read-only, for as long as a check takes."""
        async with self._connection() as connection:
            driver = await _driver_of(connection)
            await driver.execute(sessions.BEGIN_SNAPSHOT)
            try:
                yield Tx(connection, driver)
            finally:
                await _roll_back(connection, driver)

    @asynccontextmanager
    async def listening(
        self, channel: str, heard: Callable[[str], None]
    ) -> AsyncGenerator[asyncio.Event]:
        """Calls `heard` with each NOTIFY's payload; the event tells that it was cut off."""
        lost = asyncio.Event()

        def told(_connection: object, _pid: object, _channel: object, payload: object) -> None:
            heard(str(payload))

        async with self._connection() as connection:
            driver = await _driver_of(connection)
            driver.add_termination_listener(lambda _: lost.set())
            try:
                await driver.add_listener(channel, told)
                yield lost
            finally:
                await connection.invalidate()  # it must not go on listening in the pool

    async def connect(self) -> AsyncConnection:
        """A connection, to be closed by the caller. Raises `DatabaseUnavailable`."""
        try:
            with self._waits.time():
                return await self._engine.connect()
        except (
            *(OSError, TimeoutError, DBAPIError, asyncpg.PostgresError),
            *(asyncpg.InterfaceError, asyncpg.InternalClientError),
        ) as error:
            raise DatabaseUnavailable("the database cannot be reached") from error
        except PoolTimeoutError as error:
            raise DatabaseUnavailable("every database connection is in use") from error

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[AsyncConnection]:
        connection = await self.connect()
        try:
            yield connection
        finally:
            await connection.close()

    async def query(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        """What `work` reads, on another connection if the first was broken by a restart."""

        async def once() -> T:
            async with self.read() as tx:
                return await work(tx)

        return await self.retrying(once)

    async def retrying(
        self, work: Callable[[], Awaitable[T]], patience_seconds: float = LOST_DATABASE_SECONDS
    ) -> T:
        """Run `work`, one transaction, again after what is `PASSING`, or a loss before COMMIT.

        A database that is away is waited for, `patience_seconds` at most since that was noticed.
        A commit in doubt is not retried here: only its owner can tell whether it happened.
        """
        give_up_at: float | None = None
        deadlocks = 0
        while True:
            try:
                return await work()
            except (ConnectionLost, DatabaseUnavailable):
                give_up_at = give_up_at or monotonic() + patience_seconds
                if monotonic() >= give_up_at:
                    raise DatabaseUnavailable("the database cannot be reached") from None
            except (DBAPIError, asyncpg.PostgresError) as error:
                deadlocks += 1
                if deadlocks > RETRIES_MAX or sqlstate(error) not in PASSING:
                    raise
            metrics.transactions_retried.inc()
            await asyncio.sleep(PAUSE_SECONDS)

    async def repeating(
        self, work: Callable[[Tx], Awaitable[T]], *, lock_timeout_ms: int | None = None
    ) -> T:
        """One transaction that finds what an earlier run of it has made, or makes it.

        So one whose COMMIT is in doubt is run again too. Raises `DatabaseUnavailable`.
        """

        async def once() -> T:
            try:
                async with self.begin(lock_timeout_ms=lock_timeout_ms) as tx:
                    return await work(tx)
            except CommitInDoubt as error:
                raise ConnectionLost(str(error)) from error

        return await self.retrying(once)

    async def ping(self) -> bool:
        async with self.read() as tx:
            return await tx.driver.fetchval("SELECT true") is True

    async def identity(self, pepper: bytes) -> str:
        """Tells the database from every other, and from itself as restored to an earlier time."""
        statement = "SELECT timeline_id FROM pg_control_checkpoint()"
        timeline = await self.query(lambda tx: tx.driver.fetchval(statement))
        return f"{sha256(pepper).hexdigest()[:16]}-{timeline}"

    async def close(self) -> None:
        """Close the pool; a database that does not even say goodbye is not waited for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self._engine.dispose()


async def _driver_of(connection: AsyncConnection) -> asyncpg.Connection:
    raw = await connection.get_raw_connection()
    return raw.driver_connection  # pyright: ignore[reportReturnType] - asyncpg's own


async def _roll_back(connection: AsyncConnection, driver: asyncpg.Connection) -> None:
    try:
        await driver.execute("ROLLBACK", timeout=BOUNDARY_TIMEOUT_SECONDS)
    except BaseException:  # noqa: BLE001 - a connection that cannot even roll back is thrown away
        await connection.invalidate()
