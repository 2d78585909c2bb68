"""The page of compatibility: the tests that it names exist, and each row says what became of it."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/compatibility.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| what", "| ---"))
]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@cache
def _functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


def test_every_test_it_names_exists() -> None:
    assert len(NAMED) > 80
    missing = [f"{path}::{name}" for path, name in NAMED if name not in _functions(path)]
    assert not missing


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_row_is_kept_and_shown_or_changed_with_a_reason(row: list[str]) -> None:
    _, verdict, *shown = row
    word, _, reason = verdict.partition(":")
    assert word in {"kept", "changed", "open"}
    if word == "kept":
        assert shown
        assert "::" in shown[0]
    else:
        assert len(reason.split()) > 1
