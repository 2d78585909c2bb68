"""Replace a release under load, and count the requests that failed: there must be none.

Two servers of an earlier release, from this repository's history, share a database; callers spread
over them as a load balancer would, by what /readyz says. Then: `picopay migrate` of this release,
servers of this release one by one in their place, and these one by one in turn, told by SIGTERM
alone. Exits 1 if a charge failed, was made twice or is missing, or if the ledger has drifted.
"""

import argparse
import asyncio
import subprocess
import tarfile
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, suppress
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
from drills import (
    API_KEY,
    PICOPAY,
    DrillFailed,
    Load,
    Server,
    environment,
    ledger_check,
    load,
    must,
)

from picopay.embedded.servers import acquire

ROOT: Final = Path(__file__).parents[1]
MIGRATIONS: Final = "src/picopay/migrations/versions"
PROBE_SECONDS: Final = 1.0
# Longer than it takes until every probe has been answered no.
DRAIN_SECONDS: Final = 5
NO_HISTORY: Final = (
    "the earlier release is not in the git history of this folder: clone the repository with its "
    "history (git fetch --unshallow), or name a release that is there by --commit"
)


class Balancer:
    """Spreads requests over the servers that are ready, and keeps its connections to them."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._ready: dict[str, bool] = {}
        self._turn = count()

    def add(self, port: int) -> None:
        self._ready[f"http://127.0.0.1:{port}"] = True

    def remove(self, port: int) -> None:
        del self._ready[f"http://127.0.0.1:{port}"]

    def server(self) -> str:
        ready = [url for url, is_ready in self._ready.items() if is_ready]
        if not ready:
            raise DrillFailed("no server was ready")
        return ready[next(self._turn) % len(ready)]

    @asynccontextmanager
    async def probing(self) -> AsyncGenerator[None]:
        probes = asyncio.create_task(self._probe())
        try:
            yield
        finally:
            probes.cancel()
            with suppress(asyncio.CancelledError):
                await probes

    async def _probe(self) -> None:
        while True:
            for url in list(self._ready):
                ready = await self._is_ready(url)
                if url in self._ready:
                    self._ready[url] = ready
            await asyncio.sleep(PROBE_SECONDS)

    async def _is_ready(self, url: str) -> bool:
        try:
            async with self._session.get(f"{url}/readyz") as answer:
                return answer.status == 200  # noqa: PLR2004 - its own name
        except aiohttp.ClientError:
            return False


class Site:
    """The servers of a drill, each in front of the same database."""

    def __init__(self, folder: Path, balancer: Balancer, env: dict[str, str]) -> None:
        self.folder = folder
        self.balancer = balancer
        self._env = env
        self._servers = ExitStack()
        self._number = count(1)

    async def start(self, release: dict[str, str]) -> tuple[Server, int]:
        """Requests come to it once it serves."""
        log = self.folder / f"serve-{next(self._number)}.log"
        server = self._servers.enter_context(Server(log, env=self._env | release))
        port = await server.port()
        self.balancer.add(port)
        return server, port

    async def migrate(self, release: dict[str, str]) -> None:
        command = [PICOPAY, "migrate"]
        await asyncio.to_thread(must, command, self._env | release, self.folder)

    def close(self) -> None:
        self._servers.close()


def tell(what: str, how: str) -> None:
    print(f"{what:<15} {how}", flush=True)


def git(*arguments: str) -> bytes:
    ran = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=False)  # noqa: S603, S607 - our own history
    if ran.returncode != 0:
        raise DrillFailed(NO_HISTORY)
    return ran.stdout


def last_before_newest_migration() -> str:
    """The last that put the application together: between two of those, parts may not fit."""
    newest = git("log", "-1", "--format=%H", "--diff-filter=A", "--", MIGRATIONS).decode().strip()
    found = git("log", "-1", "--format=%h", f"{newest}^", "--", "src/picopay/app.py")
    if not found.strip():
        raise DrillFailed(NO_HISTORY)
    return found.decode().strip()


def unpack(commit: str, folder: Path) -> dict[str, str]:
    """The environment in which `picopay` is that release."""
    with tarfile.open(fileobj=BytesIO(git("archive", commit, "src"))) as archive:
        archive.extractall(folder, filter="data")
    return {"PYTHONPATH": str(folder / "src")}


def revisions(folder: Path) -> list[str]:
    return sorted(path.name[:4] for path in (folder / MIGRATIONS).glob("[0-9]*.py"))


async def roll(
    site: Site, old: list[tuple[Server, int]], *, by_hand: bool
) -> list[tuple[Server, int]]:
    """New servers first, then the old ones end, one after the other.

    `by_hand`: a release that does not drain by itself is told to end when nothing comes any more.
    """
    new = await asyncio.gather(*(site.start({}) for _ in old))
    for server, port in old:
        if by_hand:
            site.balancer.remove(port)
            await asyncio.sleep(1)  # for what is under way
        if await asyncio.to_thread(server.stop) != 0:
            raise DrillFailed("a server did not end as it should")
        if not by_hand:
            await asyncio.sleep(2 * PROBE_SECONDS)  # nobody tells the balancer but its probes
            site.balancer.remove(port)
    return new


async def upgrade(site: Site, charging: Load, release: dict[str, str], seconds: float) -> None:
    old = await asyncio.gather(*(site.start(release) for _ in range(2)))
    url = site.balancer.server()
    async with load(url):
        pass  # its users can pay now
    async with charging.running():
        await asyncio.sleep(seconds)
        began = time.monotonic()
        await site.migrate({})
        tell(
            "migrated",
            f"in {time.monotonic() - began:.1f} s, {len(charging.answered)} charges so far",
        )
        await asyncio.sleep(seconds)
        new = await roll(site, old, by_hand=True)
        tell("upgraded", f"both servers, {len(charging.answered)} charges so far")
        await asyncio.sleep(seconds)
        await roll(site, new, by_hand=False)
        tell("restarted", f"both servers, {len(charging.answered)} charges so far")
        await asyncio.sleep(seconds)


async def prove(charging: Load, database_url: str, data_dir: Path) -> None:
    if charging.failures:
        told = "; ".join(charging.failures[:3])
        raise DrillFailed(f"{len(charging.failures)} requests failed: {told}")
    key, first = next(iter(charging.answered.items()))
    again = await charging.charge(key, first.user)
    if not again.replayed or again.charge != first.charge:
        raise DrillFailed(f"{first} of the old release was answered again with {again}")
    owner = await asyncpg.connect(database_url)
    made = await owner.fetchval("SELECT count(*) FROM charges")
    await owner.close()
    if made != len(charging.answered):
        raise DrillFailed(f"{len(charging.answered)} charges were answered, {made} are there")
    if not ledger_check(data_dir, environment())["clean"]:
        raise DrillFailed("the ledger has drifted")
    tell("charges", f"{made} answered, none failed, each made once; the ledger is clean")


async def drill(folder: Path, commit: str, seconds: float, drain_seconds: float) -> None:
    release = unpack(commit, folder / "old")
    before, after = revisions(folder / "old"), revisions(ROOT)
    tell("releases", f"{commit}, schema {before[-1]}; this one, schema {after[-1]}")
    with acquire(folder / "data") as lease:
        servers = lease.servers
        env = environment(
            DATABASE_URL=servers.database_url,
            REDIS_URL=servers.redis_url,
            PICOPAY_ENV="development",
            PICOPAY_DATA_DIR=str(folder / "secrets"),
            SHUTDOWN_DRAIN_SECONDS=str(drain_seconds),
        )
        async with aiohttp.ClientSession(headers={"X-API-Key": API_KEY}) as session:
            site = Site(folder, Balancer(session), env)
            try:
                await site.migrate(release)
                charging = Load(session, site.balancer.server)
                async with site.balancer.probing():
                    await upgrade(site, charging, release, seconds)
                    await prove(charging, servers.database_url, servers.data_dir)
            finally:
                site.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", help="of the old release  [the last before a new migration]")
    parser.add_argument("--seconds", type=float, default=2, help="of charges between two steps")
    parser.add_argument("--abrupt", action="store_true", help="without draining: it must fail")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="picopay-drill-") as temporary:
        try:
            old = given.commit or last_before_newest_migration()
            drain = 0 if given.abrupt else DRAIN_SECONDS
            asyncio.run(drill(Path(temporary), old, given.seconds, drain))
        except DrillFailed as failed:
            raise SystemExit(f"FAILED: {failed}") from None
    print("PASSED")
