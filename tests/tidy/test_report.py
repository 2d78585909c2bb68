"""What REPORT.md and ARCHITECTURE.md name as holding a guarantee exists."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from tests.failures import matrix
from tests.failures.faults import FAULTS, FULL_DISK

from picopay.audit import INVARIANTS
from picopay.schema import Base

ROOT = Path(__file__).parents[2]
REPORT = (ROOT / "REPORT.md").read_text()
GUARANTEES = "| guarantee | rule | database | check |"
HELD_TWICE = "| invariant | rule | database | `ledger check` |"
DRAWN = (ROOT / "ARCHITECTURE.md").read_text()
ROLES = {"picopay_app"}


def cells(page: str, head: str) -> list[list[str]]:
    """Of each row of the table below its head."""
    _, _, below = page.partition(f"{head}\n")
    table, _, _ = below.partition("\n\n")
    _, *rows = table.splitlines()
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def quoted(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def stored_names() -> set[str]:
    """Of tables, constraints and indexes."""
    tables = Base.metadata.tables
    named = [item for table in tables.values() for item in (*table.constraints, *table.indexes)]
    return {*tables, *(str(item.name) for item in named)}


@pytest.mark.parametrize(("page", "head"), [(REPORT, GUARANTEES), (DRAWN, HELD_TWICE)])
def test_what_holds_a_guarantee_in_the_database_is_there(page: str, head: str) -> None:
    rows = cells(page, head)
    assert len(rows) >= 10
    named = set[str]().union(*(quoted(database) for _, _, database, *_ in rows))
    assert named - stored_names() == ROLES & named


@pytest.mark.parametrize("row", cells(REPORT, GUARANTEES), ids=lambda row: row[0])
def test_the_rule_and_the_check_of_a_guarantee_are_there(row: list[str]) -> None:
    _, rule, _, check = row
    for name in quoted(rule):
        domain, module, *attributes = name.split(".")
        found: object = import_module(f"picopay.{domain}.{module}")
        for attribute in attributes:
            found = getattr(found, attribute)
    assert quoted(check)
    assert quoted(check) <= {invariant.name for invariant in INVARIANTS}


def test_architecture_names_every_invariant_that_is_checked() -> None:
    told = ",".join(checks for *_, checks in cells(DRAWN, HELD_TWICE))
    assert set(re.findall(r"[a-z-]{4,}", told)) == {invariant.name for invariant in INVARIANTS}


def test_the_failure_matrix_of_the_report_has_every_fault() -> None:
    """Written by `python scripts/failure_matrix.py --markdown REPORT.md`."""
    _, _, rest = REPORT.partition(matrix.BEGIN)
    table, ended, _ = rest.partition(matrix.END)
    assert ended
    head, ruler, *rows = table.strip().splitlines()
    assert f"{head}\n{ruler}" == matrix.HEAD
    told = [[cell.strip() for cell in row[1:-1].split("|")] for row in rows]
    assert [tuple(row[:2]) for row in told] == [(f.name, f.how) for f in (*FAULTS, FULL_DISK)]
    assert "WRONG" not in table
    lost, doubled = (matrix.COLUMNS.index(name) for name in ("lost", "doubled"))
    for row in told:
        assert len(row) == len(matrix.COLUMNS), row
        assert all(row), row
        assert row[lost] == row[doubled] == "0", row


def _pages() -> list[Path]:
    """Ours alone: environments and caches begin with a dot, and what is built is a copy."""
    pages = (page.relative_to(ROOT) for page in ROOT.rglob("*.md"))
    return sorted(p for p in pages if p.parts[0] not in {"build", "dist"} and p.parts[0][0] != ".")


@pytest.mark.parametrize("page", _pages(), ids=str)
def test_no_page_has_a_figure_that_is_missing_or_known_to_be_old(page: Path) -> None:
    """A column of the failure matrix has the same words."""
    text = (ROOT / page).read_text().replace(matrix.HEAD, "")
    assert "«MEASURE" not in text
    assert "to be repeated" not in text


def test_a_table_is_placed_between_its_markers_or_is_the_page() -> None:
    page = f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter\n"
    new = f"before\n{matrix.BEGIN}\n\ntable\n\n{matrix.END}\nafter\n"
    assert matrix.placed("table", page) == new
    assert matrix.placed("table", new) == new
    assert matrix.placed("table", "") == "table\n"
    assert matrix.placed("table", "an older table\n") == "table\n"
    with pytest.raises(AssertionError, match="missing"):
        matrix.placed("table", f"{matrix.BEGIN}\nold\n")
