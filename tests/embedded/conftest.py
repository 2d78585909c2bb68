"""Real servers, in a directory of each test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.embedded.world import World


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Iterator[World]:
    """With a database that was made before: it takes longer than all else."""
    world = World(tmp_path / "data dir")
    world.copy(made)
    yield world
    world.end_at_once()
    world.clean_up()


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[World]:
    """Where nobody has been before."""
    world = World(tmp_path / "data dir")
    yield world
    world.end_at_once()
    world.clean_up()
