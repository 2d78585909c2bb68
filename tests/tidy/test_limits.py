"""docs/reference/limits.md names every limit of the code, with its value."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from picopay.infra import sessions
from picopay.infra.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "picopay"
PAGE = ROOT / "docs/reference/limits.md"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"

_ROW = re.compile(r"\| `(?P<name>[^`]+)` \| (?P<value>[^|]+) \| [^|]+ \| [^|]+ \|")
_LIMIT = re.compile(
    r"[A-Z]\w*(_MAX|_SECONDS|_SECONDS_MIN|_SECONDS_ASSUMED|_MS|_SLOTS|_AT_A_TIME|POOL_SIZE)|POOL_SIZE"
)
_OF_SESSION = re.compile(r"timeout|tcp_keepalives")
# Named like limits, and none: parts of what is remembered or looked for.
OTHERS = {"outbox.model.ALL_TIME_SECONDS", "infra.metrics.LATENCY_BUCKETS_SECONDS"}


def rows(page: str) -> list[tuple[str, str]]:
    return [
        (match["name"], match["value"].strip())
        for line in page.splitlines()
        if (match := _ROW.fullmatch(line))
    ]


def constants() -> Iterator[tuple[str, object]]:
    """Public numbers of modules whose names say that they are limits."""
    for module in SOURCE.rglob("*.py"):
        path = module.relative_to(SOURCE)
        if path.parts[0] == "migrations":
            continue
        dotted = ".".join(path.with_suffix("").parts)
        for name in _assigned(module):
            if _LIMIT.fullmatch(name):
                yield f"{dotted}.{name}", getattr(import_module(f"picopay.{dotted}"), name)


def _assigned(module: Path) -> Iterator[str]:
    for node in ast.parse(module.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def of_sessions() -> Iterator[tuple[str, object]]:
    """What is told to PostgreSQL: of requests all, of others what differs."""
    for name in ("REQUESTS", "RESERVED", "BACKGROUND"):
        for key, value in getattr(sessions, name).settings.items():
            own = name == "REQUESTS" or sessions.REQUESTS.settings.get(key) != value
            if own and _OF_SESSION.search(key):
                yield f"infra.sessions.{name}[{key}]", value


def settings() -> dict[str, object]:
    return {name.upper(): field.default for name, field in Settings.model_fields.items()}


def test_every_limit_is_on_the_page_once_with_its_value() -> None:
    told = rows(PAGE.read_text())
    assert len(dict(told)) == len(told), "a limit is there twice"
    known = {**dict(constants()), **dict(of_sessions())}
    for name in OTHERS:
        del known[name]
    shown = {name: value for name, value in told if not name.isupper()}
    assert shown.keys() == known.keys()
    for name, value in known.items():
        assert shown[name] == shown_as(value), name


def shown_as(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_setting_on_the_page_has_its_default() -> None:
    known = settings()
    told = [(name, value) for name, value in rows(PAGE.read_text()) if name.isupper()]
    assert told
    for name, value in told:
        assert str(known[name]) == value, name


def test_settings_that_are_limits_are_on_the_page() -> None:
    limits = {name for name in settings() if re.search(r"_(MAX|TIMEOUT|ATTEMPTS|TTL)\b|POOL", name)}
    assert limits <= dict(rows(PAGE.read_text())).keys()


def test_those_that_the_architecture_shows_are_the_same() -> None:
    shown = rows(ARCHITECTURE.read_text())
    assert len(shown) > 10
    assert set(shown) <= set(rows(PAGE.read_text()))


@pytest.mark.parametrize("line", ["| `infra.x.Y_MAX` | 5 | bounds | when |", "| `A` | 1 | b | c |"])
def test_a_row_is_read(line: str) -> None:
    assert len(rows(line)) == 1
