"""Quickstart and tutorial, followed from the first word to the last."""

from pathlib import Path

import pytest
from tests.documents.pages import ROOT, Desk, Reader, blocks_of

pytestmark = [pytest.mark.kill, pytest.mark.xdist_group("documents")]


@pytest.mark.parametrize("name", ["quickstart", "tutorial"])
def test_what_a_page_says_is_what_happens(desk: Desk, name: str) -> None:
    page: Path = ROOT / f"docs/{name}.md"
    start, *rest = blocks_of(page)
    assert start.text == "make run\n"  # which has started the server of the desk
    assert any(block.language == "bash" for block in rest)
    Reader(desk, page).follow(rest)
