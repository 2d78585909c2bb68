"""A data directory for each test, with servers that it may kill."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.processes import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()
