"""A server for the pages: started as they say, by `make run`."""

import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.documents.pages import ROOT, Desk
from tests.embedded.world import wait_until
from tests.forks import Process
from tests.processes import free_port, get, spawn

START_SECONDS_MAX = 60
# As a reader has it, but that nothing takes long and that no payment fails by chance.
SETTINGS = {
    "APP_API_KEY": "",  # a reader has those that are made for him
    "ADMIN_SECRET": "",
    "TRANSACTION_PROCESSING_DELAY_SECONDS": "1",
    "FAKE_PAYMENT_SUCCESS_RATE": "1",
    "FAKE_PAYMENT_DELAY_SECONDS": "2",
    "OUTBOX_RETRY_BASE_DELAY_SECONDS": "0.05",
}


@pytest.fixture(scope="session")
def desk(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with _desk(made, tmp_path_factory.mktemp("documents")) as shared:
        yield shared


@pytest.fixture
def untouched_desk(made: Path, tmp_path: Path) -> Iterator[Desk]:
    """For a page that shows lists in which nothing of others' may be."""
    with _desk(made, tmp_path) as own:
        yield own


@contextmanager
def _desk(made: Path, folder: Path) -> Generator[Desk]:
    data_dir, port = folder / "data", free_port()
    subprocess.run(["cp", "-a", made, data_dir], check=True)  # whose owner must stay
    for file in data_dir.glob("*.port"):
        file.unlink()
    make = [str(shutil.which("make")), "-C", str(ROOT), "run"]
    arguments = f"ARGS=--port {port} --data-dir {data_dir}"
    server = spawn([*make, arguments], SETTINGS, folder / "serve.log")
    try:
        wait_until(lambda: _is_healthy(port, server), START_SECONDS_MAX)
        yield Desk(folder / "desk", data_dir, port)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _is_healthy(port: int, server: Process) -> bool:
    assert server.poll() is None, "it ended at its start"
    try:
        return get(port, "/health")[0] == 200
    except OSError:
        return False
