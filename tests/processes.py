"""Real `picopay serve` processes: started on a data directory, stopped or killed by their pid."""

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.embedded.world import World, parent_of, pids, wait_until
from tests.forks import Process, run_command, spawn_command

from picopay.embedded import status

API_KEY = "test-key-with-every-scope"
ADMIN_SECRET = "test-secret-of-administrators"
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 45.0
PICOPAY = Path(sys.executable).with_name("picopay")

# Becomes the program, which then ends with us however we end: 1 is PR_SET_PDEATHSIG.
_SHIM = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Server:
    """One `picopay serve`, on a port that it keeps when it is started again."""

    def __init__(
        self, data_dir: Path, *, workers: int = 1, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data_dir.parent / f"serve-{self.port}.log"
        self._workers = workers
        self._data_dir = data_dir
        self._environment = dict(environment or {})
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None, "not started"
        return self._process

    def start(self, environment: Mapping[str, str] | None = None) -> Self:
        """Start it and wait until it serves; `environment` is for this start alone."""
        self.launch(environment)
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.is_healthy():
            assert self.process.poll() is None, f"ended at its start: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"did not start: {self.log.read_text()}"
            time.sleep(0.02)
        return self

    def launch(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it, and wait for nothing."""
        command = [
            *(PICOPAY, "serve", "--port", str(self.port), "--workers", str(self._workers)),
            *("--data-dir", self._data_dir),
        ]
        environment = self._environment | dict(environment or {})
        self._process = spawn(command, environment, self.log)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def is_healthy(self) -> bool:
        try:
            return get(self.port, "/health")[0] == 200
        except OSError:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait for its end; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS_MAX)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def pids(self) -> set[int]:
        """The process and all that descend from it."""
        children: dict[int, list[int]] = {}
        for pid in pids():
            if parent := parent_of(pid):
                children.setdefault(parent, []).append(pid)
        found = [self.process.pid]
        for pid in found:
            found.extend(children.get(pid, []))
        return set(found)


def spawn(command: Sequence[str | Path], environment: Mapping[str, str], log: Path) -> Process:
    """A program that ends with us; beside its log is where it works.

    `picopay` is forked; but not where another Python path changes what it imports.
    """
    if command[0] == PICOPAY and ("PYTHONPATH" not in environment or "FAULT" in environment):
        arguments = [str(word) for word in command[1:]]
        return spawn_command(arguments, {**clean_environment(), **environment}, log)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-ISc", _SHIM, *command],
            env={**clean_environment(), **environment},
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


class Site:
    """A data directory of a test's own, and the servers that use it."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder / "data")
        self.data_dir = self.world.data_dir
        self._servers: list[Server] = []

    @classmethod
    def copied(cls, made: Path, folder: Path) -> Self:
        """With a copy of a database that nobody uses."""
        site = cls(folder)
        site.world.copy(made)
        return site

    def serve(self, *, workers: int = 1, environment: Mapping[str, str] | None = None) -> Server:
        server = Server(self.data_dir, workers=workers, environment=environment)
        self.adopt(server)
        return server.start()

    def adopt(self, server: Server) -> None:
        """Stop it too at the end."""
        self._servers.append(server)

    @property
    def database_url(self) -> str:
        return self._told().database_url

    @property
    def redis_url(self) -> str:
        return self._told().redis_url

    def _told(self) -> status.Status:
        told = status.read(self.data_dir / "servers.json")
        assert told is not None, "nobody uses the data directory"
        return told

    def everything(self) -> set[int]:
        """All pids of this site: serve and its processes, keeper, PostgreSQL and Valkey."""
        serving = [s.pids() for s in self._servers if s.is_running()]
        return self.world.processes().union(*serving)

    def close(self) -> None:
        """However it can: what is asked about an end in order, a test has asked by then."""
        for server in self._servers:
            if server.is_running():
                server.kill()
        self.world.end_at_once()
        self.world.clean_up()
        wait_until(lambda: not self.world.processes())


def clean_environment() -> dict[str, str]:
    """Nothing of the machine that runs the tests changes the server."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    secrets = {"APP_API_KEY": API_KEY, "ADMIN_SECRET": ADMIN_SECRET}
    return kept | secrets | {"LOG_LEVEL": "WARNING", "LOG_FORMAT": "json"}


Ran = subprocess.CompletedProcess[str]


def run(command: Sequence[str | Path], environment: Mapping[str, str], *, cwd: Path) -> Ran:
    return subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def told(ran: Ran) -> str:
    """The one sentence of a command that failed."""
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    return " ".join(ran.stderr.split())


def picopay(data_dir: Path, *arguments: str) -> Any:  # noqa: ANN401 - whatever it prints as JSON
    """Run a command on the data directory; it must succeed."""
    command = [*arguments, "--json", "--data-dir", str(data_dir)]
    answer = run_command(command, clean_environment(), cwd=data_dir.parent)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return json.loads(answer.stdout)


def assert_ledger_clean(data_dir: Path) -> None:
    report = picopay(data_dir, "ledger", "check")
    assert report["clean"] is True, report
    assert sum(check["checked"] for check in report["checks"]) > 0


def get(port: int, path: str, *, timeout_seconds: float = 5) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def metric(port: int, name: str) -> float:
    """A sample of /metrics by its full name, labels included; 0 when it is not there."""
    for line in get(port, "/metrics")[1].splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    return 0.0


def free_port() -> int:
    """One below the range of outgoing connections, so that no client is lent it meanwhile.

    The processes of a test run draw from a thousand ports each, and by chance that pytest-randomly
    does not seed: seeded alike, they would all be given the same port before one has taken it.
    """
    first = 12_000 + 1_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    while True:
        port = first + secrets.randbelow(1_000)
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
