"""Secrets are compared in constant time: `==` ends at the first byte that differs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "picopay"
MODULES = sorted(SOURCE.rglob("*.py"))

_SECRET = re.compile(
    r"(^|_)(secrets?|digests?|signatures?|passwords?|pepper|api_key|metrics_token|bootstrap)($|_)"
)
# Places that compare what nobody from outside can choose or learn from, and why.
ALLOWED = {
    ("access/keyring.py", "digest"): "looked up by HMAC under the pepper: near misses are not near",
    (
        "cli/serve.py",
        "payment_webhook_secret",
    ): "a file of ours with a setting of ours, at the start",
}
BY_POSITION = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)


def compared(tree: ast.AST) -> Iterator[str]:
    """The names of secrets that are an operand of a comparison."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(op, BY_POSITION) for op in node.ops):
            for operand in (node.left, *node.comparators):
                yield from (name for name in _names(operand) if _SECRET.search(name))


def _names(operand: ast.expr) -> Iterator[str]:
    match operand:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield name
        case ast.Call(func=function) if _keeps(function):
            yield from _names(function)
            for argument in operand.args:
                yield from _names(argument)
            if isinstance(function, ast.Attribute):
                yield from _names(function.value)
        case ast.Subscript(value=value):
            yield from _names(value)
        case _:
            pass


def _keeps(function: ast.expr) -> bool:
    """Not for what only tells a number of it."""
    return not (isinstance(function, ast.Name) and function.id in {"len", "type", "isinstance"})


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_operator_compares_a_secret(module: Path) -> None:
    name = str(module.relative_to(SOURCE))
    found = set(compared(ast.parse(module.read_text())))
    assert not {secret for secret in found if (name, secret) not in ALLOWED}


@pytest.mark.parametrize(
    "planted",
    [
        "settings.admin_secret == told",
        "told != self._bootstrap",
        "digest(pepper, text) == stored",
        "told.encode() in secrets",
        "signatures[0] == expected.signature",
        "text.strip() == settings.app_api_key.strip()",
    ],
)
def test_a_planted_comparison_is_found(planted: str) -> None:
    assert list(compared(ast.parse(planted)))


@pytest.mark.parametrize(
    "harmless",
    ["settings.admin_secret is None", "len(secrets) == 2", "hmac.compare_digest(a, secret)"],
)
def test_what_tells_nothing_of_a_secret_is_none_of_ours(harmless: str) -> None:
    assert not list(compared(ast.parse(harmless)))


def test_every_check_of_a_secret_uses_the_one_function() -> None:
    """Where a stranger's word meets a secret: keys, the admin secret, the token, signatures."""
    using = {
        str(module.relative_to(SOURCE))
        for module in MODULES
        if "hmac.compare_digest(" in module.read_text()
    }
    assert using == {
        "access/guards.py",
        "access/keyring.py",
        "idempotency/cache.py",
        "infra/operations.py",
        "kernel/signing.py",
    }
