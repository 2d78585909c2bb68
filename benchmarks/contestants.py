"""Who competes: how each is prepared, started, and asked afterwards whether its money is right."""

import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.error import URLError
from urllib.request import urlopen

from children import free_port, start, stop
from servers import Servers, execute, number

API_KEY: Final = "benchmark-key-5c1f0f4e9a"
USERS: Final = 1000
BASELINE_CENTS: Final = 10**12  # of each user; PicoPay's get as much
START_SECONDS_MAX: Final = 60
HERE: Final = Path(__file__).resolve().parent
PICOPAY: Final = Path(sys.executable).with_name("picopay")

Kind = Literal["baseline", "picopay"]


class Wrong(Exception):
    """Money is not right, or answers do not agree with the database."""


@dataclass(frozen=True)
class Contestant:
    """A program on a database of its own."""

    name: str
    kind: Kind
    database: str
    redis_number: int
    workers: int = 1

    @property
    def charges_query(self) -> str:
        table = "transactions" if self.kind == "baseline" else "charges"
        return f"SELECT count(*) FROM {table}"  # noqa: S608  (one of two constants)


@dataclass(frozen=True)
class Running:
    contestant: Contestant
    servers: Servers
    pid: int
    port: int

    def count_charges(self) -> int:
        return number(self.servers, self.contestant.database, self.contestant.charges_query)


def prepare(servers: Servers, contestant: Contestant) -> None:
    """Create the database and its tables; the baseline's users too (PicoPay's come by HTTP)."""
    servers.create_database(contestant.database)
    if contestant.kind == "baseline":
        setup = [sys.executable, HERE / "baseline/setup.py", "--users", str(USERS)]
        finish(servers, contestant, [*setup, "--balance", str(BASELINE_CENTS)])
    else:
        finish(servers, contestant, [PICOPAY, "migrate"])


@contextmanager
def running(
    servers: Servers, contestant: Contestant, settings: Mapping[str, str] | None = None
) -> Generator[Running]:
    port = free_port()
    log = servers.folder / f"{contestant.name}.log"
    command = _command(contestant, port)
    environment = environment_of(servers, contestant) | dict(settings or {})
    process = start(command, log=log, environment=environment)
    try:
        wait_until_healthy(process, port, log)
        yield Running(contestant, servers, process.pid, port)
    finally:
        stop(process)


def check_money(servers: Servers, contestant: Contestant) -> None:
    """Raise `Wrong` unless every cent is where it should be."""
    if contestant.kind == "picopay":
        finish(servers, contestant, [PICOPAY, "ledger", "check", "--json"])
        return
    money = number(
        servers,
        contestant.database,
        "SELECT (SELECT sum(balance) FROM users)"
        " + (SELECT coalesce(sum(amount), 0) FROM transactions)",
    )
    if money != USERS * BASELINE_CENTS:
        raise Wrong(f"{contestant.name}: {money} cents where {USERS * BASELINE_CENTS} were given")


def checkpoint(servers: Servers) -> None:
    """So that no run pays for the pages of the run before."""
    execute(servers, "postgres", "CHECKPOINT")


def _command(contestant: Contestant, port: int) -> list[str | Path]:
    if contestant.kind == "picopay":
        workers = str(contestant.workers)
        return [PICOPAY, "serve", "--port", str(port), "--workers", workers]
    uvicorn = [sys.executable, "-m", "uvicorn", "--app-dir", HERE / "baseline", "app:app"]
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    return [*uvicorn, *options, "--host", "127.0.0.1", "--port", str(port)]


def environment_of(servers: Servers, contestant: Contestant) -> dict[str, str]:
    """Ours alone: what a developer has set for a server of his own must not leak in."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return inherited | {
        "DATABASE_URL": servers.database_url(contestant.database),
        "REDIS_URL": servers.redis_url(contestant.redis_number),
        "APP_API_KEY": API_KEY,
        "PICOPAY_ENV": "development",
        # Once an hour, and a minute after the start: it would fall into one of the runs.
        "LEDGER_CHECK_INTERVAL_SECONDS": "0",
    }


def finish(servers: Servers, contestant: Contestant, command: list[str | Path]) -> None:
    environment = environment_of(servers, contestant)
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        words = " ".join(map(str, command))
        raise Wrong(f"{contestant.name}: {words} failed:\n{ended.stdout}{ended.stderr}")


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up_at = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except (URLError, ConnectionError, TimeoutError):
            if process.poll() is not None or time.monotonic() > give_up_at:
                tail = log.read_text(errors="replace")[-4000:]
                raise SystemExit(f"the server does not start:\n{tail}") from None
            time.sleep(0.1)
