"""Run PicoPay behind PgBouncer in transaction mode, with the settings of deploy/pgbouncer.

On servers of its own: charges, replays, a payer locked elsewhere, PgBouncer killed and started
again under load, `picopay demo`, `picopay ledger check`. Needs PgBouncer 1.21 or newer, and an
ordinary user or root. Exits 1 unless every charge is answered and the ledger is clean.
"""

import argparse
import asyncio
import configparser
import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg
from drills import PICOPAY, DrillFailed, Load, Server, environment, ledger_check, load, must

from picopay.embedded.servers import Servers, acquire

SETTINGS: Final = Path(__file__).parents[1] / "deploy/pgbouncer/pgbouncer.ini"
LOGIN: Final = "drill"
PASSWORD: Final = "drill-password"  # noqa: S105 - of a server that ends with the drill
NOBODY: Final = 65534


def write_settings(folder: Path, database_url: str) -> tuple[Path, int]:
    """The settings as they are deployed, but for where things are; and the port."""
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read(SETTINGS)
    address = re.search(r"@([^:]+):(\d+)/", database_url)
    assert address is not None
    database = parsed["databases"]["picopay"]
    database = re.sub(r"^host=\S+ port=\d+", f"host={address[1]} port={address[2]}", database)
    parsed["databases"]["picopay"] = database
    users = folder / "users.txt"
    users.write_text(f'"{LOGIN}" "{PASSWORD}"\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    changed = {"listen_addr": "127.0.0.1", "listen_port": str(port), "auth_file": str(users)}
    parsed["pgbouncer"].update(changed | {"unix_socket_dir": ""})
    path = folder / "pgbouncer.ini"
    with path.open("w") as file:
        parsed.write(file)
    return path, port


@contextmanager
def pgbouncer(program: Path, settings: Path, log: Path) -> Generator[subprocess.Popen[bytes]]:
    """It does not run as root."""
    account = NOBODY if os.geteuid() == 0 else None
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - as told
            [program, settings], stdout=output, stderr=output, user=account, group=account
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def prepare(servers: Servers) -> None:
    """A login of the application's own, as in production."""
    owner = await asyncpg.connect(servers.database_url)
    await owner.execute(f"CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD}'")
    await owner.execute(f"GRANT picopay_app TO {LOGIN}")
    await owner.close()


async def locked_payer(charging: Load, database_url: str) -> None:
    """Delays the charges that need it, and nobody else's."""
    owner = await asyncpg.connect(database_url)
    try:
        async with owner.transaction():
            await owner.execute("SELECT FROM accounts WHERE owner = 'user:1' FOR UPDATE")
            waiting = asyncio.create_task(charging.charge(str(uuid4()), 1))
            for _ in range(20):
                await charging.charge(str(uuid4()), 2)
            if waiting.done():
                raise DrillFailed("a charge did not wait for its payer")
        await waiting
    finally:
        await owner.close()
    print("a locked payer delays its own charges only")


def environment_behind(port: int, servers: Servers, folder: Path) -> dict[str, str]:
    return environment(
        DATABASE_URL=f"postgresql://{LOGIN}:{PASSWORD}@127.0.0.1:{port}/picopay",
        REDIS_URL=servers.redis_url,
        PICOPAY_ENV="development",
        PICOPAY_DATA_DIR=str(folder / "secrets"),
        FAKE_PAYMENT_ENABLED="true",
    )


async def exercise(charging: Load, database_url: str, seconds: float) -> None:
    async with charging.running():
        await asyncio.sleep(seconds)
    key, first = next(iter(charging.answered.items()))
    again = await charging.charge(key, first.user)
    if again.charge != first.charge or not again.replayed:
        raise DrillFailed(f"{first} was answered again with {again}")
    print(f"{len(charging.answered)} charges, and a replay")
    await locked_payer(charging, database_url)


async def drill(program: Path, folder: Path, seconds: float) -> None:
    data_dir = folder / "data"
    must([PICOPAY, "migrate", "--data-dir", data_dir], environment(), folder)
    with acquire(data_dir) as lease, ExitStack() as bouncers:
        await prepare(lease.servers)
        settings, port = write_settings(folder, lease.servers.database_url)
        env = environment_behind(port, lease.servers, folder)
        log = folder / "pgbouncer.log"
        first = bouncers.enter_context(pgbouncer(program, settings, log))
        with Server(folder / "serve.log", env=env) as server:
            url = f"http://127.0.0.1:{await server.port()}"
            async with load(url) as charging:
                await exercise(charging, lease.servers.database_url, seconds)
                async with charging.running():
                    first.kill()
                    first.wait()
                    bouncers.enter_context(pgbouncer(program, settings, log))
                    await asyncio.sleep(seconds)
                if charging.failures:
                    raise DrillFailed(f"charges failed: {charging.failures[:3]}")
                print(f"{len(charging.answered)} charges, PgBouncer killed meanwhile, none failed")
            demo = [PICOPAY, "demo", "--url", url]
            await asyncio.to_thread(must, demo, env, folder)
            print("picopay demo, with orders and webhooks, ran to its end")
        if not ledger_check(data_dir, environment())["clean"]:
            raise DrillFailed("the ledger has drifted")
        print("the ledger is clean")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pgbouncer", type=Path, required=True, help="the program")
    parser.add_argument("--seconds", type=float, default=3, help="of charges, each time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="picopay-drill-") as root:
        Path(root).chmod(0o711)  # PgBouncer must reach its settings
        try:
            asyncio.run(drill(given.pgbouncer.absolute(), Path(root), given.seconds))
        except DrillFailed as failed:
            raise SystemExit(f"FAILED: {failed}") from None
    print("PASSED")
