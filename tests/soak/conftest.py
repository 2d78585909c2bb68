"""The short soak runs beside the other tests: it begins when they do, and is looked at last."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from tests.forks import Process
from tests.processes import spawn

SHORT: pytest.StashKey[Path] = pytest.StashKey()
PROCESS: pytest.StashKey[Process] = pytest.StashKey()
SHORT_SECONDS = 120
_ROOT = Path(__file__).parents[2]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begun by one process of the run, if the test is among those chosen."""
    wanted = any("short_soak" in fixtures_of(item) for item in session.items)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if not wanted or session.config.option.collectonly:
        return
    if worker is None and session.config.getoption("numprocesses", None):
        return  # the workers will
    folder = run_folder(session.config) / "soak"
    session.config.stash[SHORT] = folder
    if worker in {None, "gw0"}:
        folder.mkdir()
        command = [sys.executable, "-m", "tests.soak.soak", folder, str(SHORT_SECONDS)]
        environment = {"PYTHONPATH": str(_ROOT)}
        session.config.stash[PROCESS] = spawn(command, environment, folder / "soak.log")


def pytest_unconfigure(config: pytest.Config) -> None:
    """It has ended, unless the run was broken off."""
    if (process := config.stash.get(PROCESS, None)) is not None:
        process.terminate()
        process.wait(30)


def fixtures_of(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())


def run_folder(config: pytest.Config) -> Path:
    """As the fixture of that name."""
    own: Path = cast("Any", config)._tmp_path_factory.getbasetemp()  # noqa: SLF001 - before any fixture
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture
def short_soak(request: pytest.FixtureRequest) -> Path:
    """Its folder."""
    return request.config.stash[SHORT]
