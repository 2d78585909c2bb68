"""Each threat names a test that shows what stands against it; and that test exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text()
NAMED = re.findall(r"`(tests/[\w/.]+?)(?:::(\w+))?`", PAGE)
ROWS = [
    line
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| threat", "| ---"))
]


@cache
def _tests_of(file: str) -> set[str]:
    path = ROOT / file
    if not path.is_file():
        return set()
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
    }


def test_each_threat_names_what_shows_its_defence() -> None:
    assert len(ROWS) > 20
    assert all(re.search(r"`tests/[\w/.]+::\w+` \|$", row) for row in ROWS)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_test_that_is_named_exists(file: str, name: str) -> None:
    assert name in _tests_of(file)


def test_a_test_that_is_not_there_would_be_noticed() -> None:
    assert "test_nothing" not in _tests_of("tests/api/test_attacks.py")
    assert not _tests_of("tests/api/test_nothing.py")


def test_all_six_kinds_of_threat_are_there() -> None:
    titles = [line[3:].split(":")[0] for line in PAGE.splitlines() if line.startswith("## ")]
    assert [title[0] for title in titles] == list("STRIDE")
