"""What the drills share: servers of their own, commands, and a load that counts its failures."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from uuid import uuid4

import aiohttp

from picopay.cli.http import call, client, funded
from picopay.embedded.privileges import die_with_parent

API_KEY: Final = "drill-key-with-every-scope"
USERS: Final = range(1, 9)
DOLLARS: Final = 1_000_000
SERVER_SECONDS_MAX: Final = 180
COMMAND_SECONDS_MAX: Final = 240
PICOPAY: Final = Path(sys.executable).with_name("picopay")
_LISTENING: Final = re.compile(r"http://localhost:(\d+)")


class DrillFailed(Exception):
    """What must hold did not."""


def environment(**more: str) -> dict[str, str]:
    """Nothing of this machine's settings changes a drill."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    ours = {
        "APP_API_KEY": API_KEY,
        "ADMIN_SECRET": "drill-secret-of-administrators",
        "LOG_LEVEL": "WARNING",
    }
    return {**kept, **ours, "PYTHONSAFEPATH": "1", **more}


class Server:
    """One `picopay serve` on a free port, which ends with us however we end."""

    def __init__(self, log: Path, *arguments: str | Path, env: Mapping[str, str]) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 - ourselves
                [PICOPAY, "serve", "--port", "0", *arguments],
                cwd=log.parent,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),  # noqa: PLW1509 - no thread of ours is running yet
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def port(self) -> int:
        """Wait until it serves."""
        deadline = time.monotonic() + SERVER_SECONDS_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            if (told := _LISTENING.search(self._log.read_text())) and await _answers(int(told[1])):
                return int(told[1])
            await asyncio.sleep(0.02)
        raise DrillFailed(f"picopay serve did not start: {self._log.read_text()}")

    def stop(self) -> int:
        """As an orchestrator does: SIGTERM, and patience."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(SERVER_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise DrillFailed("picopay serve did not end") from None


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def run(command: Sequence[str | Path], env: Mapping[str, str], cwd: Path) -> tuple[int, str]:
    """(exit status, what it said)."""
    ran = subprocess.run(  # noqa: S603 - programs of ours
        command, env=env, cwd=cwd, capture_output=True, timeout=COMMAND_SECONDS_MAX, check=False
    )
    return ran.returncode, (ran.stdout or ran.stderr).decode()


def must(command: Sequence[str | Path], env: Mapping[str, str], cwd: Path) -> str:
    status, said = run(command, env, cwd)
    if status != 0:
        raise DrillFailed(f"{command[0]} failed: {said}")
    return said


def ledger_check(data_dir: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """The report of `picopay ledger check`."""
    command = [PICOPAY, "ledger", "check", "--json", "--data-dir", data_dir]
    status, said = run(command, env, data_dir.parent)
    try:
        report = json.loads(said)
    except ValueError:
        raise DrillFailed(f"picopay ledger check failed: {said}") from None
    if report["clean"] is not (status == 0):
        raise DrillFailed(f"picopay ledger check contradicts itself: {said}")
    return report


class Answer(NamedTuple):
    user: int
    charge: str  # its id
    replayed: bool


class Load:
    """Charges one after the other by several callers, each with a key of its own."""

    def __init__(
        self, session: aiohttp.ClientSession, server: Callable[[], str] = lambda: ""
    ) -> None:
        """`server` is asked before each charge where to send it."""
        self.answered: dict[str, Answer] = {}  # by key
        self.failures: list[str] = []
        self.late: set[str] | None = None  # keys sent since `mark`
        self._session = session
        self._server = server
        self._ended = False

    def mark(self) -> None:
        """From now on keys are counted as late."""
        self.late = set()

    async def charge(self, key: str, user: int) -> Answer:
        body = {"user_id": user, "amount": 1, "currency": "USD"}
        status, answer, replayed = await call(self._session, f"{self._server()}/charge", body, key)
        if status != 200:  # noqa: PLR2004 - its own name
            raise DrillFailed(f"a charge was answered {status}: {answer.get('detail')}")
        return Answer(user, answer["transaction"]["id"], replayed)

    async def _caller(self, user: int) -> None:
        while not self._ended:
            key = str(uuid4())
            if self.late is not None:
                self.late.add(key)
            try:
                self.answered[key] = await self.charge(key, user)
            except (DrillFailed, aiohttp.ClientError, TimeoutError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """All that was sent is answered at the end."""
        self._ended = False
        callers = [asyncio.create_task(self._caller(user)) for user in USERS]
        try:
            yield
        finally:
            self._ended = True
            await asyncio.gather(*callers)


@asynccontextmanager
async def load(url: str) -> AsyncGenerator[Load]:
    """A client of the server there, with users who can pay."""
    async with client(url, API_KEY, len(USERS)) as session:
        for user in USERS:
            await funded(session, user, DOLLARS)
        yield Load(session)
