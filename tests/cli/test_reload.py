"""`picopay serve --reload`: the server that runs is the source that is there."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Stores
from tests.embedded.world import wait_until
from tests.forks import run_command
from tests.processes import (
    PICOPAY,
    START_SECONDS_MAX,
    STOP_SECONDS_MAX,
    clean_environment,
    free_port,
    get,
    spawn,
    told,
)

SOURCE = Path(__file__).parents[2] / "src" / "picopay"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy that may be changed."""
    shutil.copytree(SOURCE, tmp_path / "src" / "picopay")
    return tmp_path / "src"


@pytest.fixture
def port(clean: Stores, source: Path, tmp_path: Path) -> Iterator[int]:
    number = free_port()
    environment = {
        "DATABASE_URL": clean.database_url,
        "REDIS_URL": clean.redis_url,
        "PICOPAY_ENV": "development",
        "PYTHONPATH": str(source),
    }
    command = [PICOPAY, "serve", "--reload", "--port", str(number)]
    process = spawn(command, environment, tmp_path / "serve.log")
    yield number
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(STOP_SECONDS_MAX) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def described(port: int) -> str:
    try:
        return str(json.loads(get(port, "/openapi.json")[1])["info"]["description"])
    except OSError:
        return ""


def test_a_change_of_the_source_is_served(port: int, source: Path) -> None:
    wait_until(lambda: described(port).startswith("Exactly-once"), START_SECONDS_MAX)
    app = source / "picopay" / "app.py"
    app.write_text(app.read_text().replace('"Exactly-once', '"Changed: exactly-once'))
    wait_until(lambda: described(port).startswith("Changed"), START_SECONDS_MAX)


def test_several_server_processes_are_not_reloaded(tmp_path: Path) -> None:
    ran = run_command(["serve", "--reload", "--workers", "2"], clean_environment(), cwd=tmp_path)
    assert "--reload is for one server process" in told(ran)
