"""A server and its crew of workers, for the tests that kill only workers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kill.crew import Crew
from tests.processes import Site


@pytest.fixture(scope="session")
def crew(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Started once a test process; each test has accounts of its own there."""
    crew = Crew(Site.copied(made, tmp_path_factory.mktemp("crew")))
    yield crew
    crew.close()
