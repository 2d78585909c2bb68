"""The reference pages say what the code does: nothing missing, nothing made up."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "picopay"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts/write_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_current() -> None:
    pages: dict[Path, str] = _generator().pages()
    assert len(pages) == 3
    for path, text in pages.items():
        assert path.read_text() == text, f"{path.name} is out of date: run make docs"


def test_every_log_event_is_documented_and_every_documented_event_exists() -> None:
    page = (ROOT / "docs/reference/logs.md").read_text()
    documented = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert documented == set(_events())


_EVENT = re.compile(r"(charge|order|payment|transfer|outbox)\.[a-z_]+")


def _events() -> Iterator[str]:
    for module in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            on_log = isinstance(node.func.value, ast.Name) and node.func.value.id == "log"
            if on_log and node.args:
                yield from _names(node.args[node.func.attr == "log"], module)
        if module.name in {"routes.py", "handlers.py", "relay.py"}:
            yield from _constants(module)


def _constants(module: Path) -> Iterator[str]:
    """Events that are chosen first and logged later stand as module constants."""
    for node in ast.walk(ast.parse(module.read_text())):
        value = node.value if isinstance(node, ast.AnnAssign) else None
        if isinstance(value, ast.Constant) and _EVENT.fullmatch(str(value.value)):
            yield str(value.value)


def _names(argument: ast.expr, module: Path) -> list[str]:
    """A literal, or every string assigned to the name that stands for it in that module."""
    if isinstance(argument, ast.Constant):
        return [str(argument.value)]
    if isinstance(argument, ast.Attribute):  # a level that is asked for, no event
        return []
    assert isinstance(argument, ast.Name)
    return [
        str(constant.value)
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == argument.id for t in node.targets)
        for constant in ast.walk(node.value)
        if isinstance(constant, ast.Constant)
    ]


def test_every_problem_code_raised_in_the_source_is_in_the_table() -> None:
    codes = _generator().PROBLEMS
    for module in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if (
                isinstance(node, ast.Assign)
                and any(isinstance(t, ast.Name) and t.id == "code" for t in node.targets)
                and isinstance(node.value, ast.Constant)
            ):
                assert node.value.value in codes, f"{module.name}: {node.value.value}"
