"""Pools of connections: how many are in use, for the metrics page, and how one is drained."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import Pool, QueuePool
from sqlalchemy.util.concurrency import greenlet_spawn

from picopay.infra import metrics

# By engine: what its pool is for, and how many connections it may have.
_watched: Final[WeakKeyDictionary[AsyncEngine, tuple[str, int]]] = WeakKeyDictionary()


def watch(name: str, engine: AsyncEngine, connections_max: int) -> metrics.Histogram:
    """Count the engine's connections from now on; returned is what times the wait for one."""
    _watched[engine] = (name, connections_max)
    return metrics.connection_waits.labels(name)


def measure() -> None:
    in_use, connections_max = Counter[str](), Counter[str]()
    for engine, (name, most) in list(_watched.items()):
        pool = engine.sync_engine.pool
        assert isinstance(pool, QueuePool)
        in_use[name] += pool.checkedout()
        connections_max[name] += most
    for name, most in connections_max.items():
        metrics.connections_in_use.labels(name).set(in_use[name])
        metrics.connections_max.labels(name).set(most)


async def drain(pool: Pool, seconds_max: float) -> None:
    """Close the connections that are idle, and each that is in use when it is given back."""
    event.listen(pool, "checkin", _throw_away)
    with suppress(Exception):
        async with asyncio.timeout(seconds_max):
            await greenlet_spawn(pool.dispose)


def _throw_away(_connection: object, record: Any) -> None:  # noqa: ANN401 - SQLAlchemy's record
    record.invalidate()
