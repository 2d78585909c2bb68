"""The site of all pages: it builds, needs nothing from elsewhere, and fails on a broken link."""

import re
import subprocess
import sys
from pathlib import Path

from tests.documents.pages import ROOT

FETCHED = re.compile(
    r"<(?:script|img|iframe|source)[^>]+src=\"((?:https?:)?//[^\"]+)|"
    r"<link[^>]+href=\"((?:https?:)?//[^\"]+)"
)
PAGES = ("index", "quickstart", "tutorial", "api-examples", "acceptance", "compatibility")


def test_make_docs_writes_the_pages_and_then_builds_the_site() -> None:
    recipe = re.search(r"^docs: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    steps = recipe[1].splitlines()
    assert [step.rpartition("/")[2] for step in steps[:2]] == [
        "write_reference.py",
        "write_dashboards.py",
    ]
    assert steps[2:] == ["\t@$(MAKE) --no-print-directory docs-site"]


def _build(source: Path, target: Path, builder: str) -> subprocess.CompletedProcess[str]:
    """With the options of `make docs-site`, into a folder of the test's own."""
    (recipe,) = re.findall(r"-m sphinx (.*) -c docs -d", (ROOT / "Makefile").read_text())
    command = [sys.executable, "-m", "sphinx", *recipe.split(), "-b", builder]
    return subprocess.run(
        [*command, "-c", source / "docs", "-d", target / "trees", source, target],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_the_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    built = _build(ROOT, tmp_path, "html")
    assert built.returncode == 0, built.stdout + built.stderr
    for name in (*(f"docs/{page}" for page in PAGES), "README", "ARCHITECTURE", "REPORT"):
        assert (tmp_path / f"{name}.html").exists(), name
    for page in tmp_path.rglob("*.html"):
        assert not FETCHED.search(page.read_text()), page
    index = (tmp_path / "docs/index.html").read_text()
    assert 'href="guides/orders.html"' in index
    assert 'href="../CONTRIBUTING.html"' in index


def test_broken_links_and_pages_outside_the_navigation_fail(tmp_path: Path) -> None:
    (tmp_path / "docs/guides").mkdir(parents=True)
    (tmp_path / "docs/aside").mkdir()
    (tmp_path / "docs/conf.py").write_text((ROOT / "docs/conf.py").read_text())
    (tmp_path / "docs/index.md").write_text("# Index\n\nSee [one](guides/one.md#there).\n")
    (tmp_path / "docs/guides/one.md").write_text(
        "# One\n\n## There\n\nIn [a folder](../guides/).\n"
    )
    (tmp_path / "docs/aside/lost.md").write_text("# Lost\n")
    broken = "# Two\n\n[a](gone.md) [b](one.md#gone) [c](../nowhere/) [d](one.md)\n"
    (tmp_path / "docs/guides/two.md").write_text(broken)
    built = _build(tmp_path, tmp_path / "build", "dummy")
    assert built.returncode == 1
    told = built.stderr.splitlines()
    assert len(told) == 4, built.stderr
    assert sum("guides/two.md" in line for line in told) == 3
    assert sum("aside/lost.md" in line and "toctree" in line for line in told) == 1
