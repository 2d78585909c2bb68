"""Named points of a charge, in `picopay serve`."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from striking import Fault, sigkill


def strike_after_claim(fault: Fault) -> None:
    from picopay.idempotency import store  # noqa: PLC0415 - not in processes that only pass by

    original = store.insert_absent

    async def insert_absent(*arguments: Any) -> Any:  # noqa: ANN401 - whatever it is given
        fresh = await original(*arguments)
        if fault.is_due():
            fault.strike()
        return fresh

    store.insert_absent = insert_absent


def strike_at_commit(strike: Callable[[Fault, Any, Awaitable[None]], Awaitable[None]]) -> Any:  # noqa: ANN401
    def install(fault: Fault) -> None:
        from picopay.infra.db import Db  # noqa: PLC0415 - not in processes that only pass by

        original: Any = Db._commit  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the named point

        async def commit(self: Db, connection: Any, driver: Any, *rest: Any) -> None:  # noqa: ANN401
            committing = original(self, connection, driver, *rest)
            await (strike(fault, driver, committing) if fault.is_due() else committing)

        Db._commit = commit  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]

    return install


async def _before(fault: Fault, _driver: Any, committing: Awaitable[None]) -> None:  # noqa: ANN401
    fault.strike()
    await committing


async def _during(fault: Fault, driver: Any, committing: Awaitable[None]) -> None:  # noqa: ANN401
    """COMMIT has been sent and was not answered. A struck PostgreSQL never comes to read it."""
    backend: int = driver.get_server_pid()
    if fault.victim == "postgres":
        os.kill(backend, signal.SIGSTOP)
    sent = asyncio.ensure_future(committing)
    await asyncio.sleep(0.001 if fault.victim == "self" else 0.02)
    fault.strike()
    if fault.victim == "postgres":
        sigkill(backend)
    await sent


async def _landed(fault: Fault, driver: Any, committing: Awaitable[None]) -> None:  # noqa: ANN401
    """COMMIT was done, and its answer is lost."""
    await driver.execute("COMMIT")
    backend: int = driver.get_server_pid()
    fault.strike()
    if fault.victim == "postgres":
        sigkill(backend)
    await committing


def strike_after_commit(fault: Fault) -> None:
    from picopay.charges import service  # noqa: PLC0415 - not in processes that only pass by

    original = service.commit_batch

    async def commit_batch(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        outcomes = await original(*arguments, **options)
        if fault.is_due():
            fault.strike()
        return outcomes

    service.commit_batch = commit_batch


def strike_during_cache_write(fault: Fault) -> None:
    """A struck Valkey is stopped first, so that it takes only what its socket holds."""
    from picopay.idempotency.cache import ReplayCache  # noqa: PLC0415 - likewise

    original: Any = ReplayCache._store  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the named point

    async def store(self: ReplayCache, *arguments: Any) -> None:  # noqa: ANN401
        if not fault.is_due():
            await original(self, *arguments)
            return
        if fault.victim == "valkey":
            os.kill(fault.victim_pid(), signal.SIGSTOP)
        writing = asyncio.ensure_future(original(self, *arguments))
        await asyncio.sleep(0.001)
        fault.strike()
        await writing

    ReplayCache._store = store  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]


POINTS: dict[str, Callable[[Fault], None]] = {
    "after_claim": strike_after_claim,
    "before_commit": strike_at_commit(_before),
    "during_commit": strike_at_commit(_during),
    "commit_landed": strike_at_commit(_landed),
    "after_commit": strike_after_commit,
    "during_cache_write": strike_during_cache_write,
}
