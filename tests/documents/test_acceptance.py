"""The acceptance scenarios and the walk through the API, run as their page says."""

import re

import pytest
from tests.documents.pages import ROOT, Desk, Reader, blocks_of

PAGE = ROOT / "docs/acceptance.md"
FOLDER = ROOT / "scripts/acceptance"
KEYED_WRONGLY = {"APP_API_KEY": "not-a-key"}


def _scenarios() -> set[str]:
    return {path.stem for path in FOLDER.glob("*.py")} - {"story"}


def test_every_scenario_is_on_the_page_and_every_one_of_the_page_exists() -> None:
    named = re.findall(
        r"^\.venv/bin/python scripts/acceptance/(\w+)\.py$", PAGE.read_text(), re.MULTILINE
    )
    assert sorted(named) == sorted(_scenarios())
    assert PAGE.read_text().count("**Given**") == len(named)


@pytest.mark.nightly
@pytest.mark.kill
@pytest.mark.timeout(400)
@pytest.mark.xdist_group("documents")
def test_every_scenario_passes(desk: Desk) -> None:
    everything, walk, proof, shown, *_ = blocks_of(PAGE)
    told = desk.run(everything.text)
    assert told.returncode == 0, told.stdout
    assert set(told.stdout.splitlines()) == {f"PASS  {name}" for name in _scenarios()}
    told = desk.run(walk.text)
    assert told.returncode == 0, told.stdout
    assert told.stdout.endswith(" 0 failed\n")
    Reader(desk, PAGE).follow([proof, shown])


@pytest.mark.kill
@pytest.mark.xdist_group("documents")
def test_what_does_not_hold_is_told_and_fails(desk: Desk) -> None:
    """With a key that opens nothing, whatever needs one ends with FAIL."""
    walk = desk.run("scripts/test_api.sh", **KEYED_WRONGLY)
    assert walk.returncode == 1
    assert re.search(r"^FAIL  a charge +401, not 200", walk.stdout, re.MULTILINE)
    one = desk.run(".venv/bin/python scripts/acceptance/no_overdraft.py", **KEYED_WRONGLY)
    assert one.returncode == 1
    assert "FAIL" in one.stdout
    assert "PASS" not in one.stdout
    (desk.folder / "few").mkdir()
    (desk.folder / "few/a_lie.py").write_text("raise SystemExit('it does not hold')")
    (desk.folder / "few/a_truth.py").write_text("print('PASS')")
    (desk.folder / "few/run.sh").write_text((FOLDER / "run.sh").read_text())
    all_of_them = desk.run("bash few/run.sh")
    assert all_of_them.returncode == 1
    assert re.findall(r"^\S+  \S+", all_of_them.stdout, re.MULTILINE) == [
        "FAIL  a_lie",
        "PASS  a_truth",
    ]
