"""Starting, sharing and stopping the servers."""

import json
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.embedded.world import World, answers, fetch, is_alive

from picopay.embedded.locks import Lock
from picopay.embedded.servers import EmbeddedError, Lease, Servers, acquire

pytestmark = pytest.mark.kill


async def test_data_outlives_the_servers(new_world: World) -> None:
    with acquire(new_world.data_dir) as first:
        assert first.servers.created
        await fetch(first.servers.database_url, "CREATE TABLE t AS SELECT 42 AS n")
    assert first.stopped(30)
    assert not new_world.processes()

    with acquire(new_world.data_dir) as second:
        assert not second.servers.created
        assert second.servers.database_url == first.servers.database_url
        assert second.servers.redis_url == first.servers.redis_url
        assert await fetch(second.servers.database_url, "SELECT n FROM t") == 42
        assert answers(second.servers.redis_url)


async def test_durability_keeps_its_defaults(world: World) -> None:
    with acquire(world.data_dir) as lease:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await fetch(lease.servers.database_url, f"SHOW {setting}") == "on"
        assert await fetch(lease.servers.database_url, "SHOW server_encoding") == "UTF8"
        assert await fetch(lease.servers.database_url, "SELECT lower('ÀÉ')") == "àé"


def test_a_short_user_leaves_the_servers_to_the_others(world: World) -> None:
    long, short = acquire(world.data_dir), acquire(world.data_dir)
    before = world.processes()
    short.release()
    short.release()
    assert not short.stopped(5)
    assert world.processes() >= {world.keeper(), world.postmaster(), world.valkey()}
    long.release()
    assert long.stopped(30)
    assert not [pid for pid in before if is_alive(pid)]


class _LetGo(Lock):
    """A keeper's lock that is gone the moment after we found it taken."""

    keeper: Lock

    def try_exclusive(self) -> bool:
        free = super().try_exclusive()
        self.keeper.close()
        return free


def test_a_keeper_that_ends_while_it_is_looked_for_is_gone(tmp_path: Path) -> None:
    users = _LetGo(tmp_path / "users.lock")
    users.keeper = Lock(tmp_path / "users.lock")
    assert users.keeper.try_exclusive()
    servers = Servers("", "", tmp_path, ephemeral=False, created=False)
    lease = Lease(servers, users, Lock(tmp_path / "keeper.lock"))
    lease.release()
    assert lease.stopped(5)


async def test_five_who_come_first_make_one_cluster(new_world: World) -> None:
    users = [new_world.start_user() for _ in range(5)]
    answers = [new_world.hear(user) for user in users]
    assert sorted(how for how, _ in answers) == ["created", *["joined"] * 4]
    assert len({url for _, url in answers}) == 1
    for _, url in answers:
        assert await fetch(url, "SELECT 1") == 1
    for user in users:
        new_world.leave(user)
    new_world.wait_for_nothing()


def test_who_arrives_during_shutdown_gets_new_servers(world: World) -> None:
    def come_and_go(_: int) -> None:
        for _ in range(7):
            user = world.start_user()
            assert world.hear(user)
            world.leave(user)

    with ThreadPoolExecutor(3) as three:
        list(three.map(come_and_go, range(3)))
    world.wait_for_nothing()


def test_threads_of_one_process_each_have_a_lease(world: World) -> None:
    def come_and_go(_: int) -> bool:
        with acquire(world.data_dir) as lease:
            return answers(lease.servers.redis_url)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(come_and_go, range(24)))
    world.wait_for_nothing()


def test_secrets_are_in_no_process_list_and_in_no_open_file(new_world: World) -> None:
    with acquire(new_world.data_dir):
        passwords = [
            (new_world.data_dir / name).read_text() for name in ("password", "valkey.password")
        ]
        shown = subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout
        assert str(new_world.data_dir) in shown
        assert not [password for password in passwords if password in shown]
        for path in new_world.data_dir.rglob("*"):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
        # As root, the group of the servers' account may pass the directory, not list it.
        assert stat.S_IMODE(new_world.data_dir.stat().st_mode) in {0o700, 0o710}


def test_a_long_path_with_odd_characters_works(tmp_path: Path) -> None:
    strange = World(tmp_path / ("x" * 200) / ("y" * 200) / "a 'b' \"c\" \\d $e ü%s")
    with acquire(strange.data_dir) as lease:
        assert answers(lease.servers.redis_url)
    assert lease.stopped(30)
    with pytest.raises(EmbeddedError, match="too long"):
        acquire(tmp_path / "/".join(["z" * 200] * 5))


def test_a_directory_of_someone_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    for ephemeral in (False, True):
        with pytest.raises(EmbeddedError, match="not a data directory of PicoPay"):
            acquire(tmp_path, ephemeral=ephemeral)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_cluster_of_another_version_is_refused(world: World) -> None:
    (world.data_dir / "postgres/pgdata/PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedError, match="belongs to PostgreSQL 12"):
        acquire(world.data_dir)


def test_what_a_dead_keeper_wrote_is_not_believed(world: World) -> None:
    lie = {"keeper": 1, "starter": "x", "database_url": "postgresql://elsewhere", "error": "old"}
    (world.data_dir / "servers.json").write_text(json.dumps(lie))
    with acquire(world.data_dir) as lease:
        assert "127.0.0.1" in lease.servers.database_url


def test_an_initdb_cut_short_does_no_harm(new_world: World) -> None:
    new_world.data_dir.mkdir()
    (new_world.data_dir / "users.lock").touch()
    (new_world.data_dir / "postgres/new-0123/base").mkdir(parents=True)
    with acquire(new_world.data_dir) as lease:
        assert lease.servers.created
        assert not list((new_world.data_dir / "postgres").glob("new-*"))


def test_progress_is_told(world: World) -> None:
    told: list[str] = []
    with acquire(world.data_dir, on_progress=told.append):
        assert told == [f"starting PostgreSQL and Valkey in {world.data_dir}"]
