"""`picopay serve --workers 2`: one page of metrics, one log, and nothing left behind."""

import json
import re
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import Stores
from tests.embedded.world import is_alive, wait_until
from tests.processes import Server, get
from tests.promql import asked_for_by_alerts

from picopay.cli import shared_metrics
from picopay.embedded.locks import Lock
from picopay.infra.environment import metrics_folder


@contextmanager
def a_pair(stores: Stores, folder: Path) -> Generator[Server]:
    """Two server processes, whose temporary files are in that folder."""
    (folder / "tmp").mkdir()
    environment = {
        "DATABASE_URL": stores.database_url,
        "REDIS_URL": stores.redis_url,
        "PICOPAY_ENV": "development",
        "LOG_LEVEL": "INFO",
        "LEDGER_CHECK_INTERVAL_SECONDS": "0.2",
        "TMPDIR": str(folder / "tmp"),
    }
    server = Server(folder / "data", workers=2, environment=environment)
    yield server.start()
    if server.is_running():
        server.stop()


@pytest.fixture(scope="module")
def pair(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For who only looks."""
    with a_pair(stores, tmp_path_factory.mktemp("pair")) as server:
        yield server


def folders(parent: Path) -> set[Path]:
    return set(parent.glob("picopay-metrics-*"))


@pytest.mark.nightly
def test_a_killed_servers_metrics_folder_is_gone_after_the_next_start(
    clean: Stores, tmp_path: Path
) -> None:
    with a_pair(clean, tmp_path) as pair:
        left = folders(tmp_path / "tmp")
        assert len(left) == 1
        before = pair.pids()
        pair.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in before))
        assert folders(tmp_path / "tmp") == left

        pair.start()
        assert len(folders(tmp_path / "tmp")) == 1
        assert not folders(tmp_path / "tmp") & left

        pair.stop()
        assert not folders(tmp_path / "tmp")


def test_the_page_of_several_processes_shows_what_is_documented(pair: Server) -> None:
    page = get(pair.port, "/metrics")[1]
    assert 'charge_requests_total{status="success"}' in page
    assert "_created" not in page


def test_the_page_of_several_processes_shows_all_that_alerts_ask_for(pair: Server) -> None:
    """But reasons of what has not happened."""

    def missing() -> set[str]:
        page = get(pair.port, "/metrics")[1].splitlines()
        return asked_for_by_alerts() - {re.split("[{ ]", line)[0] for line in page}

    wait_until(lambda: missing() == {"signatures_rejected_total"})


def test_what_the_supervisor_says_is_no_error_by_its_event(pair: Server) -> None:
    lines = [json.loads(text) for text in pair.log.read_text().splitlines() if text[:1] == "{"]
    said = {line["message"].partition(" [")[0] for line in lines if line["event"] == "library"}
    assert {"Started parent process", "Started server process"} <= said
    assert {line["level"] for line in lines} == {"info"}
    assert not any("error" in line["event"] for line in lines)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # so that it is put back
    return tmp_path


def a_folder(parent: Path, name: str) -> Path:
    folder = parent / f"picopay-metrics-{name}"
    folder.mkdir()
    (folder / "counter_1.db").touch()
    (folder / "lock").touch()
    return folder


def test_only_what_nobody_uses_is_deleted(temporary: Path) -> None:
    abandoned, used = a_folder(temporary, "abandoned"), a_folder(temporary, "used")
    precious = temporary / "precious"
    precious.mkdir()
    (precious / "lock").touch()
    linked = temporary / "picopay-metrics-linked"
    linked.symlink_to(precious)
    unlocked = temporary / "picopay-metrics-without-a-lock"
    unlocked.mkdir()
    process = Lock(used / "lock")
    assert process.try_shared()

    with shared_metrics.shared():
        ours = metrics_folder()
        assert ours is not None
        assert folders(temporary) == {used, linked, unlocked, ours}
        assert list(precious.iterdir()) == [precious / "lock"]
        with shared_metrics.shared():
            assert ours.exists()
    assert not ours.exists()

    process.close()
    with shared_metrics.shared():
        assert not used.exists()
    assert not abandoned.exists()


def test_a_process_that_outlives_its_supervisor_keeps_the_folder(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_folder(temporary, "orphaned")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    shared_metrics.hold()
    with shared_metrics.shared():
        assert folder.exists()
