"""What is left after anything is killed: a server that is wanted, and nothing else."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import asyncpg
import pytest
from tests.embedded.world import (
    World,
    answers,
    fetch,
    fetch_when_up,
    is_alive,
    kill,
    wait_until,
)

from picopay.embedded import status
from picopay.embedded.servers import EmbeddedError, acquire

pytestmark = pytest.mark.kill


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_last_user_takes_the_servers_along(world: World, number: signal.Signals) -> None:
    user = world.start_user()
    assert world.hear(user)
    before = world.processes()
    assert len(before) > 3
    user.send_signal(number)
    user.wait()
    world.wait_for_nothing()
    wait_until(lambda: not [pid for pid in before if is_alive(pid)])


async def test_a_killed_postmaster_comes_back_on_its_port(world: World) -> None:
    with acquire(world.data_dir) as lease:
        url = lease.servers.database_url
        await fetch(url, "CREATE TABLE t AS SELECT 42 AS n")
        # A backend that computes outlives its postmaster, and PostgreSQL will not start meanwhile.
        busy = asyncio.create_task(fetch(url, "SELECT count(*) FROM generate_series(1, 4000000)"))
        await asyncio.sleep(0.2)
        before = world.postmaster()
        kill(before)
        wait_until(lambda: not is_alive(before))
        assert await fetch_when_up(url, "SELECT n FROM t") == 42
        assert world.postmaster() != before
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            await busy


def test_a_killed_valkey_comes_back_on_its_port(world: World) -> None:
    with acquire(world.data_dir) as lease:
        before = world.valkey()
        kill(before)
        wait_until(lambda: not is_alive(before) and answers(lease.servers.redis_url))
        assert world.valkey() != before


def test_a_server_that_keeps_dying_is_given_up(world: World) -> None:
    user = world.start_user()
    assert world.hear(user)
    (world.data_dir / "postgres/pgdata/global/pg_control").unlink()
    kill(world.postmaster())
    world.wait_for_nothing()
    assert "PostgreSQL died again and again" in (world.data_dir / "keeper.log").read_text()


async def test_the_servers_of_a_killed_keeper_die_and_the_next_user_has_new_ones(
    world: World,
) -> None:
    with acquire(world.data_dir):
        world.kill_keeper()
        with acquire(world.data_dir) as second:
            assert await fetch(second.servers.database_url, "SELECT 1") == 1
            world.kill_keeper()
            world.wait_for_nothing()


async def test_a_watching_user_has_the_servers_back_where_they_were(world: World) -> None:
    told: list[str] = []
    with acquire(world.data_dir) as lease:
        lease.watch(told.append)
        before = world.keeper()
        world.kill_keeper()
        wait_until(lambda: status.read(world.data_dir / "servers.json") is not None)
        assert world.keeper() != before
        assert await fetch_when_up(lease.servers.database_url, "SELECT 1") == 1
        assert answers(lease.servers.redis_url)
    assert any("starting another" in line for line in told)


async def test_a_terminated_keeper_stops_its_servers_in_order(world: World) -> None:
    with acquire(world.data_dir):
        os.kill(world.keeper(), signal.SIGTERM)
        world.wait_for_nothing()
        assert "database system is shut down" in (world.data_dir / "postgres.log").read_text()


async def test_a_committed_row_survives_the_death_of_everything(world: World) -> None:
    user = world.start_user()
    _, url = world.hear(user)
    await fetch(url, "CREATE TABLE t AS SELECT 42 AS n")
    world.kill_everything(user)
    with acquire(world.data_dir) as lease:
        assert await fetch(lease.servers.database_url, "SELECT n FROM t") == 42
        assert answers(lease.servers.redis_url)


async def test_a_start_cut_short_anywhere_can_be_repeated(new_world: World) -> None:
    for pause in (0.05, 0.15, 0.3, 0.45, 0.6):
        user = new_world.start_user()
        with pytest.raises(subprocess.TimeoutExpired):
            user.wait(pause)
        new_world.kill_everything(user)
    with acquire(new_world.data_dir) as lease:
        assert await fetch(lease.servers.database_url, "SELECT 1") == 1


async def test_a_server_that_outlived_its_keeper_is_stopped(world: World) -> None:
    with acquire(world.data_dir):
        postmaster = world.postmaster()
        os.kill(postmaster, signal.SIGSTOP)  # so that it cannot heed the death of its keeper
        world.kill_keeper()
        user = world.start_user()
        wait_until(lambda: "left by an earlier" in (world.data_dir / "keeper.log").read_text())
        os.kill(postmaster, signal.SIGCONT)
        _, url = world.hear(user)
        assert await fetch(url, "SELECT 1") == 1
        assert not is_alive(postmaster)


def test_a_live_server_that_is_not_ours_is_refused(
    world: World, made: Path, tmp_path: Path
) -> None:
    other = World(tmp_path / "other")
    other.copy(made)
    with acquire(other.data_dir):
        theirs = other.postmaster()
        (world.data_dir / "postgres/pgdata/postmaster.pid").write_text(f"{theirs}\n")
        with pytest.raises(EmbeddedError, match=f"in use by process {theirs}"):
            acquire(world.data_dir)
        assert is_alive(theirs)


def test_a_number_that_went_to_another_program_is_no_server(world: World) -> None:
    for pid_file in ("postgres/pgdata/postmaster.pid", "valkey/valkey.pid"):
        (world.data_dir / pid_file).write_text(f"{os.getpid()}\n")
    with acquire(world.data_dir) as lease:
        assert answers(lease.servers.redis_url)


@pytest.mark.parametrize("port_file", ["postgres.port", "valkey.port"])
async def test_a_port_taken_meanwhile_is_replaced(world: World, port_file: str) -> None:
    with acquire(world.data_dir) as lease:
        pass
    assert lease.stopped(30)
    before = (world.data_dir / port_file).read_text()
    with socket.create_server(("127.0.0.1", int(before))), acquire(world.data_dir) as lease:
        assert (world.data_dir / port_file).read_text() != before
        assert await fetch(lease.servers.database_url, "SELECT 1") == 1
        assert answers(lease.servers.redis_url)


def test_a_programme_that_cannot_start_is_told_with_its_last_words(world: World) -> None:
    with (world.data_dir / "postgres/pgdata/postgresql.conf").open("a") as settings:
        settings.write("work_mem = lots\n")
    with pytest.raises(EmbeddedError, match=r"(?s)PostgreSQL did not start.*work_mem"):
        acquire(world.data_dir)
    world.wait_for_nothing()
