"""The contestants' queues behind one shape: install, put numbers in, tell of each when handled."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, NamedTuple, cast

import asyncpg
from pgqueuer import PgQueuer, Queries
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.models import Job
from procrastinate import App, PsycopgConnector
from procrastinate.types import JSONDict

from picopay import schema
from picopay.infra.db import Db
from picopay.infra.ids import new_id, process_name
from picopay.infra.tx import Tx
from picopay.outbox import service
from picopay.outbox.bell import Announcer, Bell, Listener
from picopay.outbox.consumer import Consumer
from picopay.outbox.model import Claim, Event, Holder, NewEvent
from picopay.outbox.relay import Relay, Terms
from picopay.outbox.rules import Policy

BATCH: Final = 50
CONNECTIONS: Final = 4
CONSUMER: Final = "bench"

Put = Callable[[Sequence[int]], Awaitable[None]]  # in one transaction
Done = Callable[[Sequence[int]], None]


class Queue(NamedTuple):
    """`work` handles what is put, until it is cancelled.

    It tells numbers to `called` when their handler runs, and to `done` when their effect stands.
    """

    install: Callable[[str], Awaitable[None]]
    putting: Callable[[str], AbstractAsyncContextManager[Put]]
    work: Callable[[str, Done, Done], Awaitable[None]]
    left: str  # a query: how many are not handled yet


async def _install_picopay(url: str) -> None:
    await schema.upgrade(url, url)


@asynccontextmanager
async def _put_picopay(url: str) -> AsyncGenerator[Put]:
    db = Db(url)
    bell = Announcer(db)  # as a server without a worker of its own does

    async def put(numbers: Sequence[int]) -> None:
        events = [
            NewEvent(new_id(), "bench.put", f"bench:{n}", (CONSUMER,), b"%d" % n) for n in numbers
        ]
        async with db.begin() as tx:
            await service.append(tx, events)
        bell.ring(CONSUMER)

    yield put
    await bell.stop()
    await db.close()


async def _work_picopay(url: str, called: Done, done: Done) -> None:
    """Told of when the effect is committed, proof and acknowledgement with it."""
    commit = service.handle_together

    async def told(
        db: Db, consumer: Consumer, claims: Sequence[Claim], **options: int | None
    ) -> None:
        await commit(db, consumer, claims, **options)
        done([int(claim.event.body) for claim in claims])

    async def nothing(_tx: Tx, events: Sequence[Event]) -> None:
        called([int(event.body) for event in events])

    service.handle_together = told
    db = Db(url, pool_size=CONNECTIONS)
    consumer = Consumer(CONSUMER, together=nothing, batch_max=BATCH)
    bell = Bell()
    listener = Listener(db, bell)
    terms = Terms(Holder(process_name(), 30), Policy(), lambda: 0.5)
    relay = Relay(db, [consumer], terms, bell)
    try:
        await asyncio.Event().wait()
    finally:
        await listener.stop()
        await relay.stop(5)
        await db.close()


async def _install_pgqueuer(url: str) -> None:
    connection = await asyncpg.connect(url)
    await Queries.from_asyncpg_connection(connection).install()
    await connection.close()


@asynccontextmanager
async def _put_pgqueuer(url: str) -> AsyncGenerator[Put]:
    async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=30) as pool:

        async def put(numbers: Sequence[int]) -> None:
            async with pool.acquire() as connection, connection.transaction():
                queries = Queries(AsyncpgDriver(cast("asyncpg.Connection", connection)))
                names = [CONSUMER] * len(numbers)
                bodies: list[bytes | None] = [b"%d" % n for n in numbers]
                await queries.enqueue(names, bodies, [0] * len(numbers))

        yield put


async def _work_pgqueuer(url: str, called: Done, done: Done) -> None:
    """It acknowledges later, by itself: when the handler has run is all that can be told."""
    async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=30) as pool:
        queuer = PgQueuer.from_asyncpg_pool(pool)

        @queuer.entrypoint(CONSUMER)
        async def handle(job: Job) -> None:  # pyright: ignore[reportUnusedFunction]  (registered)
            assert job.payload is not None
            called([int(job.payload)])
            done([int(job.payload)])

        running = asyncio.create_task(queuer.run(batch_size=BATCH))
        try:
            await asyncio.Event().wait()
        finally:
            queuer.shutdown.set()
            await running


def _procrastinate(url: str) -> App:
    connector = PsycopgConnector(conninfo=url, min_size=CONNECTIONS, max_size=30)
    return App(connector=connector)


async def _install_procrastinate(url: str) -> None:
    async with _procrastinate(url).open_async() as app:
        await app.schema_manager.apply_schema_async()


@asynccontextmanager
async def _put_procrastinate(url: str) -> AsyncGenerator[Put]:
    async with _procrastinate(url).open_async() as app:

        async def put(numbers: Sequence[int]) -> None:
            deferrer = app.configure_task(CONSUMER)
            jobs: list[JSONDict] = [{"number": n} for n in numbers]
            await deferrer.batch_defer_async(*jobs)

        yield put


async def _work_procrastinate(url: str, called: Done, done: Done) -> None:
    """As above."""
    logging.getLogger("procrastinate").setLevel(logging.WARNING)
    async with _procrastinate(url).open_async() as app:

        @app.task(name=CONSUMER)
        async def handle(number: int) -> None:  # pyright: ignore[reportUnusedFunction]  (registered)
            called([number])
            done([number])

        options: dict[str, Any] = {"install_signal_handlers": False, "delete_jobs": "always"}
        await app.run_worker_async(concurrency=BATCH, **options)


QUEUES: Final = {
    "picopay": Queue(
        _install_picopay, _put_picopay, _work_picopay, "SELECT count(*) FROM outbox_queue"
    ),
    "pgqueuer": Queue(
        _install_pgqueuer, _put_pgqueuer, _work_pgqueuer, "SELECT count(*) FROM pgqueuer"
    ),
    "procrastinate": Queue(
        _install_procrastinate,
        _put_procrastinate,
        _work_procrastinate,
        "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
    ),
}
