"""Real servers, in a directory of each test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.embedded.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "data dir")
    yield world
    world.clean_up()
