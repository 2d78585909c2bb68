"""An ephemeral directory goes with its last user; a database to keep never does."""

import signal
from pathlib import Path

import pytest
from tests.embedded.world import World, fetch, wait_until

from picopay.embedded.servers import EmbeddedError, acquire

pytestmark = pytest.mark.kill


async def test_others_see_the_same_database_and_the_last_one_deletes_it(new_world: World) -> None:
    first = acquire(new_world.data_dir, ephemeral=True)
    await fetch(first.servers.database_url, "CREATE TABLE t AS SELECT 42 AS n")
    second = acquire(new_world.data_dir)
    assert (first.servers.ephemeral, second.servers.ephemeral) == (True, True)
    first.release()
    assert await fetch(second.servers.database_url, "SELECT n FROM t") == 42
    second.release()
    assert second.stopped(30)
    assert not new_world.data_dir.exists()
    assert not new_world.processes()


def test_it_is_deleted_after_its_user_was_killed(new_world: World) -> None:
    user = new_world.start_user("ephemeral")
    assert new_world.hear(user)
    user.send_signal(signal.SIGKILL)
    wait_until(lambda: not new_world.data_dir.exists())
    new_world.wait_for_nothing()


def test_it_is_deleted_after_a_start_cut_short(new_world: World) -> None:
    user = new_world.start_user("ephemeral")
    wait_until(lambda: bool(list(new_world.data_dir.glob("postgres/new-*"))))
    user.send_signal(signal.SIGKILL)
    wait_until(lambda: not new_world.data_dir.exists())
    new_world.wait_for_nothing()


@pytest.mark.parametrize("ephemeral", [False, True])
async def test_what_is_left_when_all_was_killed_is_not_reused(
    new_world: World, *, ephemeral: bool
) -> None:
    user = new_world.start_user("ephemeral")
    _, url = new_world.hear(user)
    await fetch(url, "CREATE TABLE t AS SELECT 42 AS n")
    new_world.kill_everything(user)
    with acquire(new_world.data_dir, ephemeral=ephemeral) as lease:
        assert lease.servers.created
        assert lease.servers.ephemeral == ephemeral
        assert await fetch(lease.servers.database_url, "SELECT to_regclass('t')") is None
    assert lease.stopped(30)
    assert new_world.data_dir.exists() != ephemeral


def test_a_database_to_keep_is_never_made_ephemeral(world: World) -> None:
    refused = pytest.raises(EmbeddedError, match="holds a database to keep")
    with acquire(world.data_dir) as lease, refused:
        acquire(world.data_dir, ephemeral=True)
    assert lease.stopped(30)
    with pytest.raises(EmbeddedError, match="holds a database to keep"):
        acquire(world.data_dir, ephemeral=True)
    with acquire(world.data_dir) as lease:
        assert not lease.servers.created


def test_sessions_that_follow_at_once_are_each_new(tmp_path: Path) -> None:
    for _ in range(2):
        with acquire(tmp_path / "again", ephemeral=True) as lease:
            assert lease.servers.created
