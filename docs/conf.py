"""The site made of this repository's Markdown: `make docs` builds it in build/site.

Pages stay where they are and link to each other as files do; nothing is written for the site alone.
It is built with warnings as errors: a link to a file that is not there, and a page in a folder that
`FOLDERS` does not name, fail it. Theme, fonts and search come from the installed packages.
"""

from pathlib import Path
from typing import Final

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

ROOT: Final = Path(__file__).parents[1]
INDEX: Final = "docs/index"

# The navigation. A folder's pages are listed by name, but for those that come first.
FIRST: Final = ("docs/quickstart", "docs/tutorial", "docs/api-examples")
FOLDERS: Final = (
    ("Start", "docs"),
    ("Guides", "docs/guides"),
    ("Reference", "docs/reference"),
    ("Decisions", "docs/adr"),
    ("Repository", "."),
    ("Measurements", "benchmarks"),
)

project = "PicoPay"
html_title = "PicoPay"
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
extensions = ["myst_parser"]
root_doc = INDEX
include_patterns = ["*.md", "docs/*.md", "docs/**/*.md", "benchmarks/*.md"]
exclude_patterns = [".*", "build", "dist", "locks", "src", "tests"]
myst_heading_anchors = 4
myst_all_links_external = False
suppress_warnings = ["myst.header"]


def navigation(root: Path = ROOT) -> str:
    """A table of contents for each folder that has pages."""
    parts: list[str] = []
    for caption, folder in FOLDERS:
        found = {page.relative_to(root).with_suffix("") for page in (root / folder).glob("*.md")}
        names = {str(page) for page in found} - {INDEX}
        listed = [name for name in FIRST if name in names] + sorted(names - {*FIRST})
        if listed:
            entries = "\n".join(f"/{name}" for name in listed)
            parts.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```")
    return "\n\n".join(parts)


def _add_navigation(_app: Sphinx, name: str, source: list[str]) -> None:
    """Appended here, so that the page reads well where directives are not understood."""
    if name == INDEX:
        source[0] += f"\n\n{navigation()}\n"


def _name_folders(app: Sphinx, tree: nodes.document) -> None:
    """A folder of the repository is named, and not linked: it has no page."""
    page = app.env.doc2path(app.env.current_document.docname)
    for link in list(tree.findall(pending_xref)):
        target = Path(page).parent / link["reftarget"]
        if link["reftype"] == "myst" and link["reftarget"] and target.is_dir():
            link.replace_self(link.children)


def setup(app: Sphinx) -> None:
    app.add_lexer("mermaid", TextLexer)  # shown as it is written
    app.connect("source-read", _add_navigation)
    app.connect("doctree-read", _name_folders)
