"""A data directory of a test's own, the programs that use it, and what runs in it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from picopay.embedded import status

WAIT_SECONDS_MAX = 30.0
_READ_BYTES = 65_536

# It learns its directory from standard input, so that only keepers and servers show it.
_USER = """
import sys
from pathlib import Path
from picopay.embedded.servers import EmbeddedError, acquire
try:
    lease = acquire(Path(sys.stdin.readline()[:-1]), ephemeral=sys.argv[1] == "ephemeral")
except EmbeddedError as error:
    sys.exit(f"refused: {error}")
print("created" if lease.servers.created else "joined", lease.servers.database_url, flush=True)
sys.stdin.readline()
lease.release()
"""


class World:
    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._users: list[subprocess.Popen[str]] = []

    def copy(self, made: Path) -> None:
        """Begin with the database of another directory, which nobody uses."""
        subprocess.run(["cp", "-a", made, self.data_dir], check=True)  # whose owner must stay
        for port in self.data_dir.glob("*.port"):  # which another copy may have by now
            port.unlink()

    def start_user(self, mode: str = "persistent") -> subprocess.Popen[str]:
        user = subprocess.Popen(
            [sys.executable, "-c", _USER, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert user.stdin is not None
        user.stdin.write(f"{self.data_dir}\n")
        user.stdin.flush()
        self._users.append(user)
        return user

    def hear(self, user: subprocess.Popen[str]) -> list[str]:
        """Wait until it has the servers: how it got them, and where the database is."""
        assert user.stdout is not None
        return user.stdout.readline().split()

    def leave(self, user: subprocess.Popen[str]) -> None:
        user.communicate("\n", timeout=WAIT_SECONDS_MAX)
        assert user.returncode == 0

    def keeper(self) -> int:
        told = status.read(self.data_dir / "servers.json")
        assert told is not None
        return told.keeper

    def postmaster(self) -> int:
        pid_file = self.data_dir / "postgres/pgdata/postmaster.pid"
        return int(pid_file.read_text().split()[0])

    def valkey(self) -> int:
        return int((self.data_dir / "valkey/valkey.pid").read_text())

    def processes(self) -> set[int]:
        """Keeper and servers, found by the directory in their command lines, with backends."""
        everybody, wanted = pids(), os.fsencode(self.data_dir)
        ours = {pid for pid in everybody if wanted in _read(pid, "cmdline")}
        return ours | ({pid for pid in everybody if parent_of(pid) in ours} if ours else set())

    def kill_keeper(self) -> None:
        """A killed process ends a moment later: until then its locks hold."""
        kill(self.keeper())
        wait_until(lambda: status.read(self.data_dir / "servers.json") is None)

    def kill_everything(self, user: subprocess.Popen[str]) -> None:
        for pid in (user.pid, *self.processes()):
            kill(pid)
        user.wait()
        wait_until(lambda: status.read(self.data_dir / "servers.json") is None)

    def wait_for_nothing(self) -> None:
        wait_until(lambda: not self.processes())

    def end_at_once(self) -> None:
        """When nobody looks at the data any more: PostgreSQL writes nothing, and waits for nobody.

        Told to stop at once, it still takes its shared memory along, as it does not when killed.
        """
        with contextlib.suppress(AssertionError):
            kill(self.keeper())
        with contextlib.suppress(OSError, ValueError, IndexError):
            if (postmaster := self.postmaster()) in self.processes():
                os.kill(postmaster, signal.SIGQUIT)

    def clean_up(self) -> None:
        for user in self._users:
            user.kill()
            user.communicate()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.processes(), 5)
        for pid in self.processes():
            kill(pid)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    return bool(_read(pid, "cmdline"))


def wait_until(holds: Callable[[], bool], seconds: float = WAIT_SECONDS_MAX) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def answers(redis_url: str) -> bool:
    try:
        with Redis.from_url(redis_url) as client:  # pyright: ignore[reportUnknownMemberType]  (untyped)
            return bool(client.ping())  # pyright: ignore[reportUnknownMemberType]  (untyped)
    except (RedisConnectionError, OSError):
        return False


async def fetch(database_url: str, statement: str) -> object:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def fetch_when_up(database_url: str, statement: str) -> object:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        try:
            return await fetch(database_url, statement)
        except (OSError, asyncpg.CannotConnectNowError):
            assert time.monotonic() < deadline, "the database did not come back"
            time.sleep(0.05)  # noqa: ASYNC251  (nothing else runs in this loop)


def parent_of(pid: int) -> int | None:
    """None for a process that is gone."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else None


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - see below


def _read(pid: int, name: str) -> bytes:
    """As plain as can be: whoever waits for processes to end reads all of them again and again."""
    try:
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError):
        return b""
    try:
        return os.read(descriptor, _READ_BYTES)
    except ProcessLookupError:
        return b""
    finally:
        os.close(descriptor)
