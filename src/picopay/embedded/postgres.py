"""PostgreSQL: makes the cluster once, and says how to run and recognise its server."""

import os
import secrets
import shutil
import signal
from pathlib import Path

from picopay.embedded.binaries import Binaries, postgres_major
from picopay.embedded.errors import EmbeddedError
from picopay.embedded.layout import Layout, write_private
from picopay.embedded.privileges import Account
from picopay.embedded.processes import Pause, command_of, read_pid, run

_USER = _DATABASE = "picopay"
_BUILTIN_LOCALES_SINCE = 17
_STATUS_LINE = 7  # of postmaster.pid, as pg_ctl reads it

# Durability is not for sale: fsync, synchronous_commit and full_page_writes keep their defaults.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "logging_collector": "off",
    "log_destination": "stderr",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "max_connections": "200",
}


class Postgres:
    name = "PostgreSQL"
    # Fast shutdown, then immediate, which recovers at the next start.
    stop_signals = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))
    # Backends that outlive their postmaster end soon; so does a postmaster that lost its keeper.
    passing_troubles = ("pre-existing shared memory block", '"postmaster.pid" already exists')

    def __init__(self, layout: Layout, binary: Path) -> None:
        self.log = layout.postgres_log
        self.port_file = layout.postgres_port
        self._binary = binary
        self._pgdata = layout.pgdata
        self._pid_file = layout.pgdata / "postmaster.pid"

    def command(self, port: int) -> list[str | Path]:
        settings = {**_SETTINGS, "port": str(port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._binary, "-D", self._pgdata, *options]

    def answers(self, pid: int, port: int) -> bool:  # noqa: ARG002  (its pid file knows)
        if read_pid(self._pid_file) != pid:
            return False
        try:
            lines = self._pid_file.read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready"

    def find_leftover(self) -> int | None:
        """Find a live server of our data directory; refuse one that we cannot tell is ours."""
        pid = read_pid(self._pid_file)
        command = command_of(pid) if pid else []
        if pid is None or not command:
            return None
        if "postgres" not in command[0]:
            # The number went to another program, or is a zombie's: PostgreSQL would take either
            # for a living server. Orphaned backends are still noticed by their shared memory.
            self._pid_file.unlink(missing_ok=True)
            return None
        if not any(str(self._pgdata) in word for word in command):
            raise EmbeddedError(
                f"{self._pgdata} is in use by process {pid}, a PostgreSQL that PicoPay did not "
                "start: stop it, or use another data directory"
            )
        return pid


def ensure_cluster(
    layout: Layout, binaries: Binaries, account: Account | None, pause: Pause
) -> bool:
    """Make the cluster if there is none, and tell whether it was made now."""
    if layout.pgdata.exists():
        _check_cluster(layout, binaries.postgres)
        return False
    ensure_password(layout.password, account)
    for leftover in layout.postgres.glob("new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    # A name of its own: an initdb that outlived its keeper must not write into ours.
    new = layout.postgres / f"new-{secrets.token_hex(8)}"
    _make_cluster(new, layout, binaries, account, pause)
    # Complete or not there at all, whenever we are killed.
    new.rename(layout.pgdata)
    _sync(layout.postgres)
    return True


def database_url(password: str, port: int) -> str:
    return f"postgresql://{_USER}:{password}@127.0.0.1:{port}/{_DATABASE}"


def ensure_password(path: Path, account: Account | None) -> str:
    if not path.exists():
        owner = (account.uid, account.gid) if account else (-1, -1)
        write_private(path, secrets.token_urlsafe(24), *owner)
    return path.read_text()


def _make_cluster(
    new: Path, layout: Layout, binaries: Binaries, account: Account | None, pause: Pause
) -> None:
    locale = ["--locale=C"]
    if postgres_major(binaries.postgres) >= _BUILTIN_LOCALES_SINCE:
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    security = ["--auth=scram-sha-256", f"--pwfile={layout.password}"]
    initdb = [binaries.initdb, "-D", new, "-U", _USER, "--encoding=UTF8", *locale, *security]
    run(initdb, layout.postgres_log, account, pause)
    single = [binaries.postgres, "--single", "-D", new, "-c", "exit_on_error=on", "postgres"]
    run(single, layout.postgres_log, account, pause, stdin=f"CREATE DATABASE {_DATABASE}\n")


def _check_cluster(layout: Layout, postgres: Path) -> None:
    if not layout.password.exists():
        raise EmbeddedError(f"{layout.pgdata} was not made by PicoPay: use another data directory")
    made, ours = int((layout.pgdata / "PG_VERSION").read_text()), postgres_major(postgres)
    if made != ours:
        raise EmbeddedError(
            f"{layout.pgdata} belongs to PostgreSQL {made}, but {postgres} is PostgreSQL {ours}: "
            f"install PostgreSQL {made}, or use another data directory"
        )


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
