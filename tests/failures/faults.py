"""The faults, and how each is brought about and ended. All but kills last `HOLD_SECONDS`."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, NamedTuple

import asyncpg
from tests.embedded.world import wait_until
from tests.failures.field import Field
from tests.races.load import Wish
from tests.races.truth import balance, connected, locked

HOLD_SECONDS: Final = 3.0
SLOW_SECONDS: Final = 0.2  # four times what a request waits for Valkey
JUMP_SECONDS: Final = 3600
SILENT_CLIENTS: Final = 200
WAL_FILES: Final = 10
DEPOSITORS: Final = 60  # twice as many as the pool of requests has connections

Inject = Callable[[Field], Awaitable[None]]


class Fault(NamedTuple):
    name: str
    how: str
    inject: Inject  # strikes, and has ended when it returns


def killed(victim: str) -> Inject:
    async def inject(field: Field) -> None:
        if victim == "server":
            await asyncio.to_thread(field.crew.server.kill)
        elif victim == "worker":
            await asyncio.to_thread(field.crew.workers[0].stop, signal.SIGKILL)
        elif victim == "PostgreSQL":
            os.kill(field.site.world.postmaster(), signal.SIGQUIT)
        else:
            os.kill(field.site.world.valkey(), signal.SIGKILL)

    return inject


def stopped(victim: str) -> Inject:
    async def inject(field: Field) -> None:
        pids = await asyncio.to_thread(_pids, field, victim)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(HOLD_SECONDS)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return inject


def _pids(field: Field, victim: str) -> Collection[int]:
    world = field.site.world
    if victim == "server":
        return [field.crew.server.process.pid]
    if victim == "worker":
        return [field.crew.workers[0].process.pid]
    if victim == "Valkey":
        return [world.valkey()]
    return world.processes() - {world.keeper(), world.valkey()}  # PostgreSQL with its backends


async def refused(field: Field) -> None:
    await field.database.cut()
    await asyncio.sleep(HOLD_SECONDS)
    await field.database.restore()


async def read_only(field: Field) -> None:
    async with connected(field.site.database_url) as owner:
        await owner.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await owner.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(HOLD_SECONDS)
        await owner.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await owner.execute("SELECT pg_reload_conf()")


async def no_room(field: Field) -> None:
    """What PostgreSQL answers then, for a user who may not make a small disk."""
    async with connected(field.site.database_url) as owner:
        await owner.execute(
            """CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"""
        )
        for table in ("postings", "outbox_events"):
            await owner.execute(
                f"CREATE TRIGGER no_room BEFORE INSERT ON {table} EXECUTE FUNCTION no_room()"
            )
        await asyncio.sleep(HOLD_SECONDS)
        await owner.execute("DROP FUNCTION no_room CASCADE")


async def full_disk(field: Field) -> None:
    """The data directory is a small disk of its own, which something else fills."""
    ballast = field.site.data_dir / "ballast"
    await asyncio.to_thread(
        lambda: subprocess.run(
            ["dd", "if=/dev/zero", f"of={ballast}", "bs=64k"], capture_output=True, check=False
        )
    )
    assert os.statvfs(field.site.data_dir).f_bavail == 0
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        async with connected(field.site.database_url) as owner:
            for _ in range(WAL_FILES):  # there is room left in the files that it has
                await owner.execute("SELECT pg_switch_wal(), txid_current()")
    await asyncio.sleep(HOLD_SECONDS)
    assert "No space left on device" in (field.site.data_dir / "postgres.log").read_text()
    ballast.unlink()


def clock(seconds: int) -> Inject:
    async def inject(field: Field) -> None:
        field.clock.write_text(str(seconds))
        await asyncio.sleep(HOLD_SECONDS)
        field.clock.unlink()

    return inject


async def pool_exhausted(field: Field) -> None:
    """Deposits to one user whose account is locked, each holding a connection."""
    (user,) = await field.by.new_users(1)
    money = {"amount": 1, "currency": "USD"}
    before = await balance(field.site.database_url, user)
    keys = [{"Idempotency-Key": Wish.of(user).key} for _ in range(DEPOSITORS)]
    path = f"/v1/users/{user}/deposits"
    async with locked(field.site.database_url, f"user:{user}"):
        asked = [asyncio.create_task(field.by.post(path, money, key)) for key in keys]
        await asyncio.sleep(HOLD_SECONDS)
    answers = await asyncio.gather(*asked)
    assert {answer.status for answer in answers} <= {201, 503}
    again = await asyncio.gather(*(field.by.post(path, money, key) for key in keys))
    assert {answer.status for answer in again} <= {200, 201}
    assert await balance(field.site.database_url, user) == before + 100 * DEPOSITORS


async def no_connection_left(field: Field) -> None:
    async with AsyncExitStack() as held:
        owner = await held.enter_async_context(connected(field.site.database_url))
        await owner.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name = 'picopay'"""
        )
        with suppress(asyncpg.TooManyConnectionsError):
            while True:
                await held.enter_async_context(connected(field.site.database_url))
        await asyncio.sleep(HOLD_SECONDS)


async def slow_cache(field: Field) -> None:
    field.cache.delay_seconds = SLOW_SECONDS
    await asyncio.sleep(HOLD_SECONDS)
    field.cache.delay_seconds = 0


def half_open(of: str) -> Inject:
    async def inject(field: Field) -> None:
        line = field.database if of == "PostgreSQL" else field.cache
        assert line.silence() > 0
        await asyncio.sleep(HOLD_SECONDS)
        line.hang_up()

    return inject


async def silent_clients(field: Field) -> None:
    """Half a request from each, and nothing more."""
    async with AsyncExitStack() as held:
        await asyncio.gather(
            *(held.enter_async_context(_half_a_request(field)) for _ in range(SILENT_CLIENTS))
        )
        await asyncio.sleep(HOLD_SECONDS)


@asynccontextmanager
async def _half_a_request(field: Field) -> AsyncGenerator[None]:
    _, writer = await asyncio.open_connection("127.0.0.1", field.crew.server.port)
    writer.write(b"POST /charge HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    try:
        yield
    finally:
        writer.transport.abort()


def _is_back(field: Field) -> bool:
    with suppress(OSError, ValueError, IndexError):
        world = field.site.world
        return {world.postmaster(), world.valkey()} <= world.processes()
    return False


async def until_stores_are_back(field: Field) -> None:
    await asyncio.to_thread(wait_until, lambda: _is_back(field))


FAULTS: Final = [
    *(
        Fault(f"{victim} killed", how, killed(victim))
        for victim, how in {
            "server": "SIGKILL; started again after 0.5 s",
            "worker": "SIGKILL; started again after 0.5 s",
            "PostgreSQL": "SIGQUIT, its immediate stop; its keeper starts it again",
            "Valkey": "SIGKILL; its keeper starts it again",
        }.items()
    ),
    *(
        Fault(f"{victim} hangs", "SIGSTOP, then SIGCONT", stopped(victim))
        for victim in ("server", "worker", "PostgreSQL", "Valkey")
    ),
    Fault("PostgreSQL refuses connections", "connections cut, new ones refused", refused),
    Fault("PostgreSQL only reads", "default_transaction_read_only, as a standby", read_only),
    Fault("no room for data", "PostgreSQL answers 53100 to inserts", no_room),
    Fault("clock an hour ahead", "of server and worker, and back", clock(JUMP_SECONDS)),
    Fault("clock an hour back", "of server and worker, and forth", clock(-JUMP_SECONDS)),
    Fault("pool exhausted", f"{DEPOSITORS} deposits to a locked account", pool_exhausted),
    Fault("no connection left", "all that PostgreSQL has, by others", no_connection_left),
    Fault("Valkey slow", f"every packet late by {1000 * SLOW_SECONDS:.0f} ms", slow_cache),
    Fault("PostgreSQL half open", "its connections fall silent", half_open("PostgreSQL")),
    Fault("Valkey half open", "its connections fall silent", half_open("Valkey")),
    Fault("clients half open", f"{SILENT_CLIENTS} with half a request each", silent_clients),
]
# The data directory must be a disk of its own: see `matrix.small_disk`.
FULL_DISK: Final = Fault("disk full", "a small tmpfs, filled to the last byte", full_disk)
