"""The reference pages say what the code does: nothing missing, nothing made up."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

from picopay import worker
from picopay.cli.main import COMMANDS
from picopay.infra.db import Db
from picopay.infra.http import Http
from picopay.infra.settings import Settings
from picopay.orders.model import Timer

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
    assert len(pages) == 6
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


def test_every_event_that_is_appended_is_documented_with_its_body() -> None:
    told = {event.type: set(event.body) for event in _generator().EVENTS}
    assert told == dict(_appended())


def _appended() -> Iterator[tuple[str, set[str]]]:
    """(type, names in the body) of each `NewEvent`, from the modules that make them."""
    for path in sorted(SOURCE.glob("*/*.py")):
        tree = ast.parse(path.read_text())
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for call in ast.walk(function):
                    if _is_call(call, "NewEvent"):
                        module = import_module(f"picopay.{path.parent.name}.{path.stem}")
                        for name in _types(call.args[1], module):
                            yield name, _body(function)


def _is_call(node: ast.AST, name: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _types(argument: ast.expr, module: ModuleType) -> list[str]:
    """A constant's value; of a `Timer`, those of all timers that the module knows."""
    if isinstance(argument, ast.Name):
        return [str(getattr(module, argument.id))]
    return [known.type for known in vars(module).values() if isinstance(known, Timer)]


def _body(function: ast.AST) -> set[str]:
    (names,) = [node.keys for node in ast.walk(function) if isinstance(node, ast.Dict)]
    return {str(name.value) for name in names if isinstance(name, ast.Constant)}


async def test_every_consumer_is_documented_and_every_documented_consumer_exists() -> None:
    settings = Settings(
        database_url="postgresql://picopay@localhost/picopay",
        fake_payment_enabled=True,
        payment_webhook_secret="a-callback-secret-for-tests",
    )
    db, http = Db.of(settings), Http()
    existing = {consumer.name for consumer in worker.consumers(settings, db, http)}
    await db.close()
    await http.close()
    assert {name for e in _generator().EVENTS for name in e.consumers} == existing


def test_every_command_is_documented() -> None:
    named = [name for name, _ in _generator().command_list()]
    page = (ROOT / "docs/reference/commands.md").read_text()
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == named
    assert {name.split()[1] for name in named} == set(COMMANDS)


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
