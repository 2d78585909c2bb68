"""The page of API examples: every operation, and every answer as the server gives it."""

import re
from functools import cache

import pytest
from tests.api.test_openapi import operations
from tests.documents.pages import ROOT, Desk, Reader, blocks_of, curls_of

PAGE = ROOT / "docs/api-examples.md"
OPERATIONS = cache(lambda: dict(operations()))


def _operation(method: str, path: str) -> str:
    """As the document names it; a literal path is closer than one with parameters."""
    paths = [path for verb, _, path in (o.partition(" ") for o in OPERATIONS()) if verb == method]
    fitting = [p for p in paths if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", p), path)]
    assert fitting, f"{method} {path} is no operation"
    return f"{method} {min(fitting, key=lambda p: p.count('{'))}"


def test_every_operation_is_shown_and_nothing_else() -> None:
    shown = {_operation(method, path) for _, method, path in curls_of(PAGE)}
    assert shown == set(OPERATIONS())


def test_a_heading_names_what_is_shown_below_it() -> None:
    headings = set(re.findall(r"^### (.*)$", PAGE.read_text(), re.MULTILINE))
    assert headings == set(OPERATIONS())


def test_every_status_that_is_shown_is_documented() -> None:
    documented = {name: set(told["responses"]) for name, told in OPERATIONS().items()}
    for block, method, path in curls_of(PAGE):
        assert str(block.status) in documented[_operation(method, path)], block.text


@pytest.mark.kill
@pytest.mark.xdist_group("documents")
def test_every_example_is_answered_as_shown(untouched_desk: Desk) -> None:
    blocks = blocks_of(PAGE)
    assert all(block.status for block in blocks if block.language == "bash")
    Reader(untouched_desk, PAGE).follow(blocks)
