"""The project's own style: what no linter can see."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "picopay"
MODULES = sorted(SOURCE.rglob("*.py"))
FUNCTION_LINES_MAX = 50
FILE_LINES_MAX = 350

# Only these begin transactions; rule 3.
TRANSACTION_OWNERS = {
    *("service.py", "dead_letters.py", "refunds.py", "asking.py", "payments.py", "db.py"),
}


def _name(module: Path) -> str:
    return str(module.relative_to(SOURCE))


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_files_and_functions_are_short(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= FILE_LINES_MAX
    for function in _functions(ast.parse(text)):
        assert function.end_lineno is not None
        length = function.end_lineno - function.lineno + 1
        assert length <= FUNCTION_LINES_MAX, f"{function.name} has {length} lines"


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_a_module_opens_with_what_it_is_for(module: Path) -> None:
    text = module.read_text()
    assert not text or ast.get_docstring(ast.parse(text)), "no docstring"


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_only_services_begin_transactions_and_nobody_commits(module: Path) -> None:
    calls = set(_calls(ast.parse(module.read_text())))
    assert not calls & {"commit", "rollback"}
    if "begin" in calls:
        # schema.py runs migrations as the owner, and the check's snapshot is infra's own.
        assert module.name in TRANSACTION_OWNERS | {"schema.py"}


LATER = {"fake_payments", "outbox", "transfers"}
WORKING = [m for m in MODULES if LATER & {*m.parts} or m.name == "worker.py"]


@pytest.mark.parametrize("module", WORKING, ids=_name)
def test_what_works_later_measures_time_and_never_tells_it(module: Path) -> None:
    """Due times are the database's; ruff forbids `datetime.now` everywhere."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            assert "time" not in {name.name for name in node.names}
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            assert {name.name for name in node.names} == {"monotonic"}


STORES = [m for m in MODULES if m.name in {"store.py", "refunds_store.py"}]
SERVICES = [m for m in MODULES if m.name in {"service.py", "refunds.py", "asking.py"}]


@pytest.mark.parametrize("module", STORES, ids=_name)
def test_stores_join_transactions(module: Path) -> None:
    for function in ast.parse(module.read_text()).body:
        if isinstance(function, ast.AsyncFunctionDef):
            assert function.args.args[0].arg == "tx", function.name


@pytest.mark.parametrize("module", SERVICES, ids=_name)
def test_services_say_who_owns_the_transaction(module: Path) -> None:
    for function in ast.parse(module.read_text()).body:
        if isinstance(function, ast.AsyncFunctionDef):
            assert function.args.args[0].arg in {"tx", "db"}, function.name


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_nothing_is_imported_inside_a_function(module: Path) -> None:
    for function in _functions(ast.parse(module.read_text())):
        nested = [n for n in ast.walk(function) if isinstance(n, (ast.Import, ast.ImportFrom))]
        assert not nested, function.name


def test_no_folder_or_module_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
    assert not {m.stem for m in MODULES} & drawers
    assert not {m.parent.name for m in MODULES} & drawers
