"""Restore a database to a point in time, and prove what came back.

On a PostgreSQL of its own, in a temporary folder: archive the WAL, take a base backup under load,
note a point in time, charge on, and make a mistake that no transaction can undo. Then restore.
Every charge that was answered before the point must be there, none that was sent after it, and
`picopay ledger check` must find nothing. Exits 1 unless all of it holds.
"""

import argparse
import asyncio
import os
import shlex
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
from drills import PICOPAY, DrillFailed, Load, Server, environment, ledger_check, load, must

from picopay.embedded import binaries
from picopay.embedded.layout import Layout
from picopay.embedded.servers import acquire

STOP_SECONDS_MAX: Final = 30
ARCHIVE_SECONDS_MAX: Final = 30
MISTAKE: Final = "DELETE FROM postings"
# Whole or not at all, and never over what is there: docker-compose.backup.yml does the same.
ARCHIVE: Final = (
    "test ! -f {folder}/%f && cp %p {folder}/%f.part && sync {folder}/%f.part"
    " && mv {folder}/%f.part {folder}/%f"
)


@dataclass(frozen=True)
class Charges:
    """Ids: answered before the point, sent after it, and all that were ever answered."""

    before: set[str]
    late: set[str]
    answered: set[str]

    def verdict(self, restored: set[str]) -> str:
        """Those in flight at the point may be on either side of it."""
        lost, too_new = self.before - restored, self.late & restored
        unknown = restored - self.answered
        if lost or too_new or unknown:
            raise DrillFailed(
                f"{len(lost)} charges answered before the point are missing, {len(too_new)} sent "
                f"after it are there, {len(unknown)} were never answered"
            )
        in_flight = len(self.answered - self.before - self.late)
        return (
            f"all {len(self.before)} answered before the point, none of {len(self.late)} sent "
            f"after it, {len(restored - self.before)} of {in_flight} in flight"
        )


@dataclass(frozen=True)
class Places:
    root: Path

    @property
    def site(self) -> Layout:
        return Layout(self.root / "site")

    @property
    def restored(self) -> Layout:
        return Layout(self.root / "restored")

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def backup(self) -> Path:
        return self.root / "backup"


def tell(what: str, how: str) -> None:
    print(f"{what:<15} {how}", flush=True)


async def prepare(places: Places) -> None:
    """A migrated database that archives its WAL from its next start on."""
    must([PICOPAY, "migrate", "--data-dir", places.site.root], environment(), places.root)
    places.archive.mkdir(mode=0o700)
    _give(places.archive, places.site.postgres)
    copy = ARCHIVE.format(folder=_folder(places.archive))
    with acquire(places.site.root) as lease:
        owner = await asyncpg.connect(lease.servers.database_url)
        for setting in ("archive_mode = 'on'", f"archive_command = {_quoted(copy)}"):
            await owner.execute(f"ALTER SYSTEM SET {setting}")
        await owner.close()
    if not lease.stopped(STOP_SECONDS_MAX):
        raise DrillFailed("PostgreSQL did not stop")


async def back_up(places: Places, database_url: str) -> None:
    """With the WAL that it needs, and verified against its own manifest."""
    began = time.monotonic()
    tool, verify = (_program(name) for name in ("pg_basebackup", "pg_verifybackup"))
    take = [tool, "-d", database_url, "-D", places.backup, "-X", "stream", "-c", "fast"]
    await asyncio.to_thread(must, take, environment(), places.root)
    took = time.monotonic() - began
    await asyncio.to_thread(must, [verify, "-q", places.backup], environment(), places.root)
    size = sum(file.stat().st_size for file in places.backup.rglob("*") if file.is_file())
    tell("base backup", f"{size / 1e6:.0f} MB in {took:.1f} s while charges ran, verified")


async def live(places: Places, seconds: float) -> tuple[datetime, Charges, Load]:
    """The life of a database until somebody makes a mistake."""
    with acquire(places.site.root) as lease:
        url = lease.servers.database_url
        log = places.root / "serve.log"
        with Server(log, "--data-dir", places.site.root, env=environment()) as server:
            async with load(f"http://127.0.0.1:{await server.port()}") as charging:
                async with charging.running():
                    await back_up(places, url)
                    await asyncio.sleep(seconds)
                    before = {answer.charge for answer in charging.answered.values()}
                    point = await _now(url)
                    charging.mark()
                    await asyncio.sleep(seconds)
                charges = _told(charging, before)
            await _err(places, url)
    lease.stopped(STOP_SECONDS_MAX)
    tell("point in time", f"{point.isoformat()}, {len(charges.before)} charges answered before it")
    return point, charges, charging


def _told(charging: Load, before: set[str]) -> Charges:
    if charging.failures or charging.late is None:
        raise DrillFailed(f"charges failed: {charging.failures[:3]}")
    late = {charging.answered[key].charge for key in charging.late}
    return Charges(before, late, {answer.charge for answer in charging.answered.values()})


async def _now(url: str) -> datetime:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("SELECT clock_timestamp()")
    finally:
        await connection.close()


async def _err(places: Places, url: str) -> None:
    """The mistake, seen; and the WAL up to here in the archive."""
    owner = await asyncpg.connect(url)
    try:
        done = await owner.execute(MISTAKE)
        if ledger_check(places.site.root, environment())["clean"]:
            raise DrillFailed("the ledger check does not notice the mistake")
        tell("mistake", f"{MISTAKE} ({done.split()[-1]} rows): the ledger check finds the drift")
        wanted = await owner.fetchval("SELECT pg_walfile_name(pg_switch_wal())")
        deadline = time.monotonic() + ARCHIVE_SECONDS_MAX
        while not (places.archive / wanted).exists():
            if time.monotonic() > deadline:
                raise DrillFailed(f"{wanted} was not archived")
            await asyncio.sleep(0.02)
    finally:
        await owner.close()


def lay_out(places: Places, point: datetime | None) -> None:
    """The base backup as a data directory that recovers to the point when it is started."""
    site, restored = places.site, places.restored
    restored.root.mkdir(mode=0o700)
    restored.postgres.mkdir(mode=0o700)
    restored.users_lock.touch()
    shutil.copy2(site.password, restored.password)
    shutil.copytree(places.backup, restored.pgdata, symlinks=True)
    (restored.pgdata / "recovery.signal").touch()
    settings = {
        "archive_mode": "off",  # the archive is the old database's
        "restore_command": _quoted(f"cp {_folder(places.archive)}/%f %p"),
        "recovery_target_action": "promote",
    }
    if point is not None:
        settings["recovery_target_time"] = _quoted(point.isoformat(sep=" "))
    with (restored.pgdata / "postgresql.auto.conf").open("a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in settings.items())
    for path in (restored.password, restored.postgres, *restored.postgres.rglob("*")):
        _give(path, site.postgres)


async def prove(places: Places, charges: Charges, before: Load) -> None:
    with acquire(places.restored.root) as lease:
        report = ledger_check(places.restored.root, environment())
        if not report["clean"]:
            raise DrillFailed(f"the restored ledger has drifted: {report}")
        checked = sum(check["checked"] for check in report["checks"])
        tell("ledger check", f"clean, {checked} things checked")
        owner = await asyncpg.connect(lease.servers.database_url)
        rows: list[tuple[UUID]] = await owner.fetch("SELECT id FROM charges")  # pyright: ignore[reportAssignmentType] - rows are tuples
        await owner.close()
        tell("charges", charges.verdict({str(row[0]) for row in rows}))
        log = places.root / "serve-restored.log"
        with Server(log, "--data-dir", places.restored.root, env=environment()) as server:
            async with load(f"http://127.0.0.1:{await server.port()}") as again:
                await _repeat(before, again, charges)
    lease.stopped(STOP_SECONDS_MAX)


async def _repeat(before: Load, again: Load, charges: Charges) -> None:
    """What clients that repeat their keys will see: old ones replay, later ones charge anew."""
    for chosen, replays in ((charges.before, True), (charges.late, False)):
        key, first = next((k, a) for k, a in before.answered.items() if a.charge in chosen)
        answer = await again.charge(key, first.user)
        if answer.replayed is not replays or (answer.charge == first.charge) is not replays:
            raise DrillFailed(f"key {key} was answered with {answer} after {first}")
    tell("retries", "a key from before the point is replayed, a later one charges anew")


def _program(name: str) -> Path:
    return binaries.find().postgres.with_name(name)


def _give(path: Path, to: Path) -> None:
    """To the account that PostgreSQL runs as, if we are root."""
    if os.geteuid() == 0:
        owner = to.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _folder(path: Path) -> str:
    return shlex.quote(str(path).replace("%", "%%"))


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


async def drill(places: Places, seconds: float, *, to_the_end: bool) -> None:
    await prepare(places)
    point, charges, charging = await live(places, seconds)
    began = time.monotonic()
    lay_out(places, None if to_the_end else point)
    with acquire(places.restored.root) as lease:  # starts PostgreSQL, which recovers
        tell("restored", f"in {time.monotonic() - began:.1f} s, to a timeline of its own")
        await prove(places, charges, charging)
    lease.stopped(STOP_SECONDS_MAX)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=2, help="of charges, before the point and after it"
    )
    parser.add_argument(
        "--to-the-end", action="store_true", help="restore the mistake too: the drill must fail"
    )
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="picopay-drill-") as folder:
        try:
            asyncio.run(drill(Places(Path(folder)), given.seconds, to_the_end=given.to_the_end))
        except DrillFailed as failed:
            raise SystemExit(f"FAILED: {failed}") from None
    print(f"PASSED in {time.monotonic() - began:.1f} s")
