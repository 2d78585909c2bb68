"""SIGKILL of a worker at named points of an event: each transaction is processed exactly once.

The points are struck from outside the source, by `faults/sitecustomize.py`, in one of the workers
that run side by side. A worker that was alone is started again.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.forks import run_command
from tests.kill.crew import Crew, Trap, Worker
from tests.kill.senders import Sending, assert_all_is_processed
from tests.processes import Ran, clean_environment
from tests.races.load import caller
from tests.races.truth import connected

pytestmark = pytest.mark.kill

KILLED = -signal.SIGKILL
PROCESSING = ["after_claim", "before_effect", "after_effect", "before_ack", "after_ack"]
SHUTDOWN = ["in_shutdown", "in_give_back"]
CREWS = [1, 2, 3, 4]
# With every number of workers only by night; these are the cases of every day.
DAILY = {("after_effect", 1), ("after_effect", 4)}


def matrix(points: list[str]) -> pytest.MarkDecorator:
    cases = [
        pytest.param(
            point,
            number,
            marks=() if number == 2 or (point, number) in DAILY else pytest.mark.nightly,
        )
        for point in points
        for number in CREWS
    ]
    return pytest.mark.parametrize(("point", "number"), cases)


@matrix(PROCESSING)
async def test_a_worker_killed_while_it_processes_leaves_each_transaction_one_posting(
    crew: Crew, point: str, number: int
) -> None:
    trap, trapped = with_a_trap(crew, point, number)
    sending = Sending()
    async with caller(crew.server.url) as by:
        await sending.keep_sending(by, trap.has_struck)
        assert trapped.process.wait(10) == KILLED
        crew.be(max(number - 1, 1))
        await assert_all_is_processed(crew.site.database_url, by, sending)


@matrix(SHUTDOWN)
async def test_a_worker_killed_while_it_ends_leaves_each_transaction_one_posting(
    crew: Crew, point: str, number: int
) -> None:
    trap, trapped = with_a_trap(crew, point, number)
    sending = Sending()
    async with caller(crew.server.url) as by:
        await sending.keep_sending(by, trap.is_reached)
        assert not trap.has_struck()
        assert trapped.stop(signal.SIGTERM) == KILLED
        assert trap.has_struck()
        crew.be(max(number - 1, 1))
        await assert_all_is_processed(crew.site.database_url, by, sending)


@matrix(["in_dead_lettering"])
async def test_a_worker_killed_while_it_gives_an_event_up_leaves_one_dead_letter(
    crew: Crew, point: str, number: int
) -> None:
    trap, trapped = with_a_trap(crew, point, number)
    sending = Sending()
    async with caller(crew.server.url) as by:
        async with a_full_account(crew, sending):
            await sending.keep_sending(by, trap.has_struck, sending.doomed)
            assert trapped.process.wait(10) == KILLED
            crew.be(max(number - 1, 1))
            doomed = doomed_of(sending)
            await wait_for_letters(crew, sending, len(doomed))
        await assert_all_is_processed(crew.site.database_url, by, sending, doomed)
        letters = await letters_of(crew, sending)
    assert sorted(letters) == sorted((id_, "rejected", None) for id_ in doomed)


@matrix(["in_replay"])
async def test_a_replay_that_is_killed_is_done_once_by_the_next(
    crew: Crew, point: str, number: int
) -> None:
    crew.be(number)
    sending = Sending()
    async with caller(crew.server.url) as by:
        async with a_full_account(crew, sending):
            await sending.burst(by, [sending.doomed() for _ in range(5)])
            await wait_for_letters(crew, sending, 5)
        trap, ids = Trap(crew.folder, point), await ids_of_letters(crew, sending)
        assert replay(crew, sending, ids, trap).returncode == KILLED
        assert trap.has_struck()
        assert {letter[2] for letter in await letters_of(crew, sending)} == {None}
        await assert_all_is_processed(crew.site.database_url, by, sending, doomed_of(sending))

        said = [replay(crew, sending, ids).stdout for _ in range(2)]
        assert said == ["5 replayed\n", "0 replayed\n"]
        await assert_all_is_processed(crew.site.database_url, by, sending)
    assert [letter[2] for letter in await letters_of(crew, sending)] == 5 * ["replayed"]
    async with connected(crew.site.database_url) as owner:
        audits = await owner.fetch(
            "SELECT letters FROM dead_letter_audits WHERE reason = $1", sending.name
        )
    assert [row["letters"] for row in audits] == [5]


async def test_a_transaction_that_kills_every_worker_is_given_up_and_its_neighbours_are_processed(
    crew: Crew,
) -> None:
    """It comes in between others, so that it is claimed together with them."""
    attempts = 3
    crew.be(0)
    sending = Sending()
    async with caller(crew.server.url) as by:
        row = [sending.next() for _ in range(41)]
        poison = row[len(row) // 2].id
        await sending.burst(by, row)
        trap = Trap(crew.folder, "before_effect", only=poison)
        settings = {"OUTBOX_MAX_ATTEMPTS": str(attempts), "OUTBOX_LEASE_SECONDS": "2"}
        crew.join({**trap.environment, **settings}, number=attempts + 1)
        await assert_all_is_processed(crew.site.database_url, by, sending, {poison})
    assert await letters_of(crew, sending) == [(poison, "crashed", None)]
    ends = [worker.process.poll() for worker in crew.joined]
    assert sorted(ends, key=str) == [KILLED] * attempts + [None]


def with_a_trap(crew: Crew, point: str, number: int) -> tuple[Trap, Worker]:
    """So many workers, in one of which the point is struck."""
    crew.be(number - 1)
    trap = Trap(crew.folder, point)
    (trapped,) = crew.join(trap.environment)
    return trap, trapped


@asynccontextmanager
async def a_full_account(crew: Crew, sending: Sending) -> AsyncGenerator[None]:
    """Whose totals leave no room for a posting, until it is mended."""
    async with connected(crew.site.database_url) as owner:
        await owner.execute(
            "INSERT INTO accounts (owner, currency, may_overdraw, debits, credits, version)"
            " VALUES ($1, 'USD', true, 9223372036854775807, 0, 1)",
            sending.full_account,
        )
        yield
        await owner.execute("DELETE FROM accounts WHERE owner = $1", sending.full_account)


def doomed_of(sending: Sending) -> set[str]:
    full = sending.full_account.removeprefix("external:")
    return {t.id for t in sending.accepted.values() if t.source == full}


async def letters_of(crew: Crew, sending: Sending) -> list[tuple[str, str, str | None]]:
    """Transaction, reason and resolution of each."""
    async with connected(crew.site.database_url) as owner:
        rows: list[Any] = await owner.fetch(
            "SELECT substr(aggregate, length('transfer:') + 1), reason, resolution"
            "  FROM dead_letters WHERE starts_with(aggregate, $1)",
            f"transfer:{sending.name}-",
        )
    return [tuple(row) for row in rows]


async def ids_of_letters(crew: Crew, sending: Sending) -> list[str]:
    async with connected(crew.site.database_url) as owner:
        rows = await owner.fetch(
            "SELECT id::text FROM dead_letters WHERE starts_with(aggregate, $1)",
            f"transfer:{sending.name}-",
        )
    return [row["id"] for row in rows]


async def wait_for_letters(crew: Crew, sending: Sending, number: int) -> None:
    give_up_at = asyncio.get_running_loop().time() + 30
    while len(await letters_of(crew, sending)) < number:
        assert asyncio.get_running_loop().time() < give_up_at, "not given up"
        await asyncio.sleep(0.05)


def replay(crew: Crew, sending: Sending, ids: list[str], trap: Trap | None = None) -> Ran:
    """Of this test's letters alone."""
    options = ["--note", sending.name, "--data-dir", str(crew.site.data_dir)]
    environment = clean_environment() | (trap.environment if trap else {})
    return run_command(["dead-letters", "replay", *ids, *options], environment, cwd=crew.folder)
