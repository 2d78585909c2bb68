"""Where faults are tried: a server, a worker, PostgreSQL and Valkey, and a line to each store."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.failures.network import Line
from tests.forks import run_command
from tests.kill.crew import Crew, supervised
from tests.processes import Site, clean_environment
from tests.races.load import Caller, caller

from picopay.embedded.servers import acquire

CLOCK = Path(__file__).parents[1] / "races" / "clock"


class Field:
    def __init__(self, crew: Crew, database: Line, cache: Line, by: Caller) -> None:
        self.crew = crew
        self.database = database
        self.cache = cache
        self.by = by

    @property
    def site(self) -> Site:
        return self.crew.site

    @property
    def clock(self) -> Path:
        """While it is there, it says by how many seconds the programs' clocks are wrong."""
        return self.crew.folder / "clock-jump"


@asynccontextmanager
async def field(folder: Path, made: Path | None = None) -> AsyncGenerator[Field]:
    """Whatever is killed there is started again, by its keeper or by who supervises.

    With a database that was made before, the clocks there are always right: programs whose clocks
    may be wrong have to import everything anew.
    """
    site = Site(folder) if made is None else Site.copied(made, folder)
    clocks = {"PYTHONPATH": str(CLOCK), "CLOCK_JUMP": str(folder / "clock-jump")}
    with await asyncio.to_thread(acquire, site.data_dir) as lease:
        lease.watch(lambda _: None)
        if made is None:
            await asyncio.to_thread(_migrate, site)
        database, cache = Line(site.database_url), Line(site.redis_url)
        async with database.running(), cache.running():
            environment = {
                "DATABASE_URL": database.url,
                "REDIS_URL": cache.url,
                "PICOPAY_ENV": "development",
                "PICOPAY_DATA_DIR": str(site.data_dir),
            } | (clocks if made is None else {})
            crew = await asyncio.to_thread(Crew, site, environment)
            try:
                await asyncio.to_thread(crew.be, 1)
                async with supervised(crew), caller(crew.server.url) as by:
                    yield Field(crew, database, cache, by)
            finally:
                await asyncio.to_thread(_stop, crew)
    await asyncio.to_thread(site.close)


def _migrate(site: Site) -> None:
    command = ["migrate", "--data-dir", str(site.data_dir)]
    ran = run_command(command, clean_environment(), cwd=site.data_dir.parent)
    assert ran.returncode == 0, ran.stderr


def _stop(crew: Crew) -> None:
    for worker in crew.workers:
        worker.stop()
    if crew.server.is_running():
        crew.server.stop()
