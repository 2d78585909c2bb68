"""How many connections the pools of this process have in use, for its metrics page."""

from collections import Counter
from typing import Final
from weakref import WeakKeyDictionary

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

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
