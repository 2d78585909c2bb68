"""Real `picopay worker` processes beside a server that does no background work itself."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.embedded.world import wait_until
from tests.processes import PICOPAY, START_SECONDS_MAX, STOP_SECONDS_MAX, Server, Site, spawn

FAULTS = Path(__file__).with_name("faults")
LEASE_SECONDS = 1
API_ONLY = {"PICOPAY_WORKER": "false", "TRANSACTION_PROCESSING_DELAY_SECONDS": "0"}
RESTART_SECONDS = 0.5
HEALTHY_SECONDS_MAX = 60
_NUMBERS = count(1)


class Worker:
    """One `picopay worker`, and what it says."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str]) -> None:
        self.log = data_dir.parent / f"worker-{next(_NUMBERS)}.log"
        quick = {"OUTBOX_LEASE_SECONDS": str(LEASE_SECONDS), "LOG_LEVEL": "INFO"}
        command = [PICOPAY, "worker", "--data-dir", data_dir]
        self.process = spawn(command, {**quick, **environment}, self.log)

    def said(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of that event."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [told for line in lines if (told := json.loads(line)).get("event") == event]

    def has_started(self) -> bool:
        return bool(self.said("worker.started"))

    def wait_until_started(self) -> None:
        def started() -> bool:
            if self.has_started():  # and possibly ended since
                return True
            assert self.is_running(), f"ended at its start: {self.log.read_text()}"
            return False

        wait_until(started, START_SECONDS_MAX)

    def is_running(self) -> bool:
        return self.process.poll() is None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait for its end; the exit status."""
        if self.is_running():
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS_MAX)


class Trap:
    """A fault at a named point, and whether it has struck."""

    def __init__(self, folder: Path, point: str, victim: str = "self", only: str = "") -> None:
        self._armed = folder / f"trap-{next(_NUMBERS)}.armed"
        self._armed.touch()
        self.environment = {
            "PYTHONPATH": str(FAULTS),
            "FAULT": f"{point}:{victim}:1",
            "FAULT_ARMED": str(self._armed),
        }
        if only:
            self.environment["FAULT_ONLY"] = only

    def has_struck(self) -> bool:
        return self._armed.with_suffix(".struck").exists()

    def is_reached(self) -> bool:
        return self._armed.with_suffix(".reached").exists()


class Crew:
    """A site with one server, and as many workers beside it as a test asks for."""

    def __init__(self, site: Site, environment: Mapping[str, str] | None = None) -> None:
        """With settings of the caller's for all of them."""
        self.site = site
        self._environment = dict(environment or {})
        self.server: Server = site.serve(environment=API_ONLY | self._environment)
        self.workers: list[Worker] = []
        self.joined: list[Worker] = []  # for one test alone

    @property
    def folder(self) -> Path:
        return self.site.data_dir.parent

    def be(self, number: int) -> None:
        """So many sound workers; those of the test before stay, if they can."""
        self._dismiss(self.joined)
        self.workers = [worker for worker in self.workers if worker.is_running()]
        while len(self.workers) > number:
            assert self.workers.pop().stop() == 0
        missing = number - len(self.workers)
        new = [Worker(self.site.data_dir, self._environment) for _ in range(missing)]
        self.workers += new
        for worker in new:
            worker.wait_until_started()

    def replace_the_dead(self) -> None:
        """Start others for those that have ended, and wait for nothing."""
        self.workers = [
            worker if worker.is_running() else Worker(self.site.data_dir, self._environment)
            for worker in self.workers
        ]

    def is_at_work(self) -> bool:
        return all(worker.is_running() and worker.has_started() for worker in self.workers)

    def join(self, environment: Mapping[str, str], *, number: int = 1) -> list[Worker]:
        """Further workers, for one test alone: with a trap, or with other settings."""
        new = [Worker(self.site.data_dir, environment) for _ in range(number)]
        self.joined += new
        for worker in new:
            worker.wait_until_started()
        return new

    def close(self) -> None:
        self._dismiss(self.joined)
        self._dismiss(self.workers)
        self.site.close()

    def _dismiss(self, workers: list[Worker]) -> None:
        for worker in workers:
            worker.stop(signal.SIGKILL)
        workers.clear()


@asynccontextmanager
async def supervised(crew: Crew) -> AsyncGenerator[None]:
    """Whatever ends is started again a moment later; at the end all of it works."""
    end = asyncio.Event()

    async def supervise() -> None:
        while not end.is_set():
            await asyncio.sleep(RESTART_SECONDS)
            crew.replace_the_dead()
            if not crew.server.is_running():
                crew.server.launch()

    task = asyncio.create_task(supervise())
    try:
        yield
        give_up_at = time.monotonic() + HEALTHY_SECONDS_MAX
        while not (crew.is_at_work() and await asyncio.to_thread(crew.server.is_healthy)):
            assert time.monotonic() < give_up_at, "did not come back"
            await asyncio.sleep(0.1)
    finally:
        end.set()
        await task
