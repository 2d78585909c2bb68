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
    if line.startswith("| ") and not line.startswith(("| items", "| ---"))
]
# How many things each of the three services did, and how they were numbered, by subject.
COUNTS = {"P": 93, "O": 68, "W": 26}
NUMBERED = {
    "P": "1-15 20-25 30-35 40-53 60-65 70-78 80-83 90-95 100-105 110-113 120-129 140-146",
    "O": "1-36 40-47 50-61 70-73 80-87",
    "W": "1-6 10-21 30-37",
}
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@cache
def _functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


def _between(service: str, first: str, last: str) -> list[str]:
    return [f"{service}-{number:03}" for number in range(int(first), int(last) + 1)]


def _items(cell: str) -> list[str]:
    """Single ones and, with a dash between two of them, all from one to the other."""
    found: list[str] = []
    for part in cell.split(", "):
        matched = re.fullmatch(r"([POW])-(\d{3})(?:\N{EN DASH}\1-(\d{3}))?", part)
        assert matched, cell
        service, first, last = matched.groups()
        found += _between(service, first, last or first)
    return found


def test_every_item_of_the_three_services_is_there_once() -> None:
    wanted = [
        item
        for service, ranges in NUMBERED.items()
        for first_to_last in ranges.split()
        for item in _between(service, *first_to_last.split("-"))
    ]
    told = [item for cell, *_ in ROWS for item in _items(cell)]
    assert sorted(told) == sorted(wanted)
    assert {s: sum(item.startswith(s) for item in told) for s in COUNTS} == COUNTS


def test_every_test_it_names_exists() -> None:
    assert len(NAMED) > 80
    missing = [f"{path}::{name}" for path, name in NAMED if name not in _functions(path)]
    assert not missing


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_row_is_kept_and_shown_or_changed_with_a_reason(row: list[str]) -> None:
    _, _, verdict, *shown = row
    word, _, reason = verdict.partition(":")
    assert word in {"kept", "changed"}
    if word == "kept":
        assert shown
        assert "::" in shown[0]
    else:
        assert len(reason.split()) > 1
