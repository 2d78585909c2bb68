"""A steady mixed load on a server and a worker, and what of them grows with it.

`python -m tests.soak.soak FOLDER SECONDS` writes what it found to `FOLDER/soak.json`.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import asyncpg
from tests.kill.crew import API_ONLY, Worker
from tests.processes import Server, Site, assert_ledger_clean
from tests.races.load import caller
from tests.races.truth import connected
from tests.soak.flat import Point, growth
from tests.soak.mixed import Mixed, going_on, opened

CUSTOMERS: Final = 4
SAMPLE_SECONDS: Final = 1.0
DONE_SECONDS_MAX: Final = 120
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
SHOP: Final = API_ONLY | {
    "FAKE_PAYMENT_ENABLED": "true",
    "FAKE_PAYMENT_DELAY_SECONDS": "0",
    "RATE_LIMIT_ORDERS_PER_ADDRESS_PER_MINUTE": "0",
}

OF_WORKER: Final = {"LOG_LEVEL": "WARNING", "OUTBOX_LEASE_SECONDS": "30"}


@dataclass(frozen=True)
class Found:
    """Growth is by request, after the warm-up."""

    requests: int
    memory_bytes: Mapping[str, float]
    descriptors: Mapping[str, float]
    connections: float
    descriptors_max: Mapping[str, int]
    connections_max: int
    ledger_clean: bool


async def soak(
    folder: Path, seconds: float, *, pause_seconds: float, leak: Mapping[str, str] | None = None
) -> Found:
    """A third of the time is warm-up; `leak` is environment for the server alone."""
    site = Site(folder)
    server = Server(site.data_dir, environment=SHOP)
    site.adopt(server)
    worker = None
    try:
        await asyncio.to_thread(server.start, leak)
        worker = Worker(site.data_dir, SHOP | OF_WORKER | {"PICOPAY_URL": server.url})
        pids = {"server": server.process.pid, "worker": worker.process.pid}
        async with caller(server.url) as by, connected(site.database_url) as owner:
            mixed = await opened(by)
            async with going_on(mixed, customers=CUSTOMERS, pause_seconds=pause_seconds):
                await asyncio.sleep(seconds / 3)
                samples = Samples(pids, mixed, owner)
                await samples.take(2 * seconds / 3)
            await _all_is_done(owner)
        await asyncio.to_thread(assert_ledger_clean, site.data_dir)
        assert worker.stop() == 0
        return samples.found()
    finally:
        if worker is not None and worker.is_running():
            worker.stop()
        await asyncio.to_thread(site.close)


async def _all_is_done(owner: asyncpg.Connection) -> None:
    """Every webhook is processed and every order has ended; what is left is due much later."""
    give_up_at = asyncio.get_running_loop().time() + DONE_SECONDS_MAX
    while left := await owner.fetchval(
        """SELECT (SELECT count(*) FROM transfers WHERE processed_at IS NULL)
                + (SELECT count(*) FROM orders WHERE status NOT IN ('paid', 'canceled'))"""
    ):
        assert asyncio.get_running_loop().time() < give_up_at, f"{left} are left"
        await asyncio.sleep(0.5)


class Samples:
    def __init__(self, pids: Mapping[str, int], mixed: Mixed, owner: asyncpg.Connection) -> None:
        self._pids = pids
        self._mixed = mixed
        self._owner = owner
        self._memory: dict[str, list[Point]] = {name: [] for name in pids}
        self._descriptors: dict[str, list[Point]] = {name: [] for name in pids}
        self._connections: list[Point] = []

    async def take(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await asyncio.sleep(SAMPLE_SECONDS)
            done = self._mixed.requests
            for name, pid in self._pids.items():
                self._memory[name].append(Point(done, _memory_bytes(pid)))
                self._descriptors[name].append(Point(done, _descriptors(pid)))
            self._connections.append(Point(done, await self._count_connections()))

    async def _count_connections(self) -> int:
        return await self._owner.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'picopay'"
        )

    def found(self) -> Found:
        """The ledger is clean, or nobody would have come to ask."""
        return Found(
            self._mixed.requests,
            {name: growth(points) for name, points in self._memory.items()},
            {name: growth(points) for name, points in self._descriptors.items()},
            growth(self._connections),
            {name: _most(points) for name, points in self._descriptors.items()},
            _most(self._connections),
            ledger_clean=True,
        )


def _most(points: list[Point]) -> int:
    return int(max(point.value for point in points))


def _memory_bytes(pid: int) -> int:
    """What is resident and the process's own: not the files it maps."""
    _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    return (resident - shared) * _PAGE_BYTES


def _descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def main() -> None:
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    try:
        found = asyncio.run(soak(folder, seconds, pause_seconds=0.4))
    finally:
        (folder / "ended").touch()
    told = folder / "soak.json"
    told.with_suffix(".new").write_text(json.dumps(asdict(found)))
    told.with_suffix(".new").rename(told)


if __name__ == "__main__":
    main()
