"""The upgrade drill needs an earlier release, and says so where there is none."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.deploy.files import ROOT
from tests.forks import run_script


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
    command = ["git", "-C", folder, *identity, *arguments]
    subprocess.run(command, capture_output=True, timeout=30, check=True)


@pytest.mark.parametrize("commits", [0, 1])
@pytest.mark.parametrize("chosen", [[], ["--commit", "0123456"]])
def test_without_history_the_drill_says_in_one_sentence_what_to_do(
    tmp_path: Path, commits: int, chosen: list[str]
) -> None:
    """An unpacked archive has none, and a shallow clone ends at its one commit."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    versions = tmp_path / "src/picopay/migrations/versions"
    versions.mkdir(parents=True)
    (versions / "0001_first.py").touch()
    if commits:
        git(tmp_path, "init", "--quiet")
        git(tmp_path, "add", "--all")
        git(tmp_path, "commit", "--quiet", "--message", "all there is")
    ran = run_script(tmp_path / "scripts/upgrade_drill.py", chosen, os.environ, cwd=tmp_path)
    assert ran.returncode == 1
    (told,) = ran.stderr.splitlines()
    assert told.startswith("FAILED: the earlier release is not in the git history of this folder")
    assert "--unshallow" in told
    assert "--commit" in told
