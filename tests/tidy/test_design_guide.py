"""The design guide names every test that shows what it claims, and no other."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_guide_and_its_demonstrations_agree() -> None:
    page = (ROOT / "docs/design-guide.md").read_text()
    shown = ast.parse((ROOT / "tests/integration/test_design_guide.py").read_text())
    tests = {node.name for node in shown.body if isinstance(node, ast.AsyncFunctionDef)}
    assert set(re.findall(r"`(test_\w+)`", page)) == {t for t in tests if t.startswith("test_")}
