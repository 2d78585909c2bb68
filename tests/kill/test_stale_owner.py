"""A worker that is stopped with claims in hand, and goes on after others have taken them over."""

import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.embedded.world import wait_until
from tests.kill.crew import LEASE_SECONDS, Crew, Trap, Worker
from tests.kill.senders import Sending, assert_all_is_processed
from tests.races.load import caller
from tests.races.truth import connected

pytestmark = pytest.mark.kill

LEASE_LOST = "outbox.lease_lost"
IN_DOUBT = "database.commit_in_doubt"


@asynccontextmanager
async def overtaken(crew: Crew, point: str) -> AsyncGenerator[tuple[Worker, Worker]]:
    """A worker that stops at the point, and goes on after another has finished its work.

    Afterwards nothing was done again, and it works on as before.
    """
    crew.be(0)
    trap, stale = stopped_at(crew, point)
    sending = Sending()
    async with caller(crew.server.url) as by:
        await sending.insist(by, sending.next())
        wait_until(lambda: is_stopped(stale))
        assert trap.has_struck()
        (other,) = crew.join({})
        await assert_all_is_processed(crew.site.database_url, by, sending)
        stale.process.send_signal(signal.SIGCONT)
        yield stale, other
        await sending.burst(by, [sending.next() for _ in range(20)])
        await assert_all_is_processed(crew.site.database_url, by, sending)


# All but the first are inside the transaction: PostgreSQL ends that of a process which is silent
# for ten seconds, and its connection with it.
@pytest.mark.parametrize(
    "point",
    [
        "after_claim",
        pytest.param("before_effect", marks=pytest.mark.nightly),
        "before_ack",
    ],
)
async def test_who_goes_on_after_others_have_finished_is_refused_and_posts_nothing(
    crew: Crew, point: str
) -> None:
    async with overtaken(crew, point) as (stale, other):
        wait_until(lambda: lost(stale) > 0)
    assert stale.stop() == 0
    assert lost(stale) == 1
    assert lost(other) == 0


@pytest.mark.nightly
async def test_who_goes_on_with_a_commit_that_comes_too_late_is_in_doubt_and_does_nothing_again(
    crew: Crew,
) -> None:
    """Whether its COMMIT arrived it cannot know: it says so, and leaves the event to others."""
    async with overtaken(crew, "after_effect") as (stale, _):
        wait_until(lambda: len(stale.said(IN_DOUBT)) > 0)
    assert stale.stop() == 0
    told = stale.said(IN_DOUBT)
    # A claim or a renewal may have been on its way too: those are of no request.
    assert len([line for line in told if "request_id" in line]) == 1, told


async def test_who_goes_on_while_another_holds_the_lease_is_refused_and_its_effect_rolls_back(
    crew: Crew,
) -> None:
    """The other one is stopped as well, so that the first one's effect is made in full."""
    crew.be(0)
    trap, stale = stopped_at(crew, "after_claim")
    sending = Sending()
    async with caller(crew.server.url) as by:
        await sending.insist(by, sending.next())
        wait_until(lambda: is_stopped(stale))
        holder_trap, holder = stopped_at(crew, "after_claim", lease_seconds=60)
        wait_until(lambda: is_stopped(holder))
        assert (trap.has_struck(), holder_trap.has_struck()) == (True, True)

        stale.process.send_signal(signal.SIGCONT)
        wait_until(lambda: lost(stale) > 0)
        async with connected(crew.site.database_url) as owner:
            consumed = "SELECT count(*) FROM outbox_consumed WHERE starts_with(aggregate, $1)"
            assert await owner.fetchval(consumed, f"transfer:{sending.name}") == 0
            posted = "SELECT count(*) FROM postings WHERE starts_with(debit_owner, $1)"
            assert await owner.fetchval(posted, f"external:{sending.name}") == 0
        holder.process.send_signal(signal.SIGCONT)
        await assert_all_is_processed(crew.site.database_url, by, sending)
    assert [worker.stop() for worker in (stale, holder)] == [0, 0]
    assert (lost(stale), lost(holder)) == (1, 0)
    # Nor does the log tell of what was rolled back.
    assert [len(worker.said("transfer.processed")) for worker in (stale, holder)] == [0, 1]


def stopped_at(crew: Crew, point: str, lease_seconds: int = LEASE_SECONDS) -> tuple[Trap, Worker]:
    """A worker that stops, and stays where it is, when it first comes to the point."""
    trap = Trap(crew.folder, point, "stopped")
    lease = {"OUTBOX_LEASE_SECONDS": str(lease_seconds)}
    (worker,) = crew.join({**trap.environment, **lease})
    return trap, worker


def is_stopped(worker: Worker) -> bool:
    stat = Path(f"/proc/{worker.process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def lost(worker: Worker) -> int:
    """How many events it was refused, as it tells."""
    return sum(line["events"] for line in worker.said(LEASE_LOST))
