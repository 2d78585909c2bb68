"""The drills of DEPLOY.md, run as an operator runs them."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.processes import clean_environment

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]


def drill(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / name, *arguments],
        env=clean_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )


def test_a_database_is_restored_to_the_point_in_time_and_no_further(noisy: None) -> None:
    ran = drill("restore_drill.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "ledger check    clean" in ran.stdout
    assert "PASSED" in ran.stdout.splitlines()[-1]


def test_a_restore_that_goes_too_far_fails_the_drill(noisy: None) -> None:
    ran = drill("restore_drill.py", "--to-the-end", "--seconds", "1")
    assert ran.returncode == 1
    assert "FAILED: the restored ledger has drifted" in ran.stderr


def test_a_release_is_replaced_without_a_failed_request(noisy: None) -> None:
    ran = drill("upgrade_drill.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "none failed, each made once; the ledger is clean" in ran.stdout


def test_servers_that_end_abruptly_fail_the_drill(noisy: None) -> None:
    ran = drill("upgrade_drill.py", "--abrupt")
    assert ran.returncode == 1
    assert "requests failed" in ran.stderr
