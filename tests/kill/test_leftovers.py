"""Nothing is left running when `picopay serve` ends, however it ends."""

import asyncio
import signal
import time

import pytest
from tests.embedded.world import is_alive, wait_until
from tests.processes import Server, Site, assert_ledger_clean
from tests.races.load import Wish, caller, measured_figure

pytestmark = pytest.mark.kill

GONE_SECONDS_MAX = 15
# Two workers whose parent was killed first answer what they have taken, for 30 s at most.
GONE_UNDER_LOAD_SECONDS_MAX = 40
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]


@pytest.mark.parametrize(
    ("workers", "number"),
    [
        pytest.param(
            *(workers, number),
            id=f"{workers}-{number.name}",
            marks=pytest.mark.nightly if workers == 2 and number != signal.SIGKILL else (),
        )
        for workers in (1, 2)
        for number in SIGNALS
    ],
)
def test_nothing_is_left_running(site: Site, workers: int, number: signal.Signals) -> None:
    server = site.serve(workers=workers)
    before = site.everything()
    # serve, keeper, postmaster with helpers, Valkey; two workers come with a tracker.
    assert {site.world.keeper(), site.world.postmaster(), site.world.valkey()} < before
    assert len(server.pids()) >= (1 if workers == 1 else 3)

    started = time.monotonic()
    status = server.stop(number)
    wait_until(lambda: not any(is_alive(pid) for pid in before), GONE_SECONDS_MAX)

    measured_figure("gone_ms", 1000 * (time.monotonic() - started))
    assert not site.world.processes()
    assert status == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    assert not server.is_healthy()


@pytest.mark.parametrize(
    "seconds", [0, *(pytest.param(s, marks=pytest.mark.nightly) for s in (0.1, 0.3, 0.6))]
)
def test_a_server_killed_at_its_start_leaves_no_worker_behind(site: Site, seconds: float) -> None:
    """Its workers are there already, and import what they need."""
    server = Server(site.data_dir, workers=2)
    site.adopt(server)
    server.launch()
    wait_until(lambda: len(server.pids()) >= 4)  # with a tracker of multiprocessing's own
    time.sleep(seconds)
    before = site.everything()
    server.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in before), GONE_SECONDS_MAX)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.nightly)])
async def test_after_a_kill_under_load_nothing_is_left_and_the_next_start_goes_on(
    site: Site, workers: int
) -> None:
    server = site.serve(workers=workers)
    async with caller(server.url) as by:
        wishes = [Wish.of(user) for user in await by.new_users(10) for _ in range(30)]
        calls = [asyncio.create_task(by.try_charge(wish)) for wish in wishes]
        await asyncio.sleep(0.1)
        before = site.everything()
        await asyncio.to_thread(server.kill)
        answers = await asyncio.gather(*calls)
    wait_until(lambda: not any(is_alive(pid) for pid in before), GONE_UNDER_LOAD_SECONDS_MAX)

    await asyncio.to_thread(server.start)
    async with caller(server.url) as by:
        again = await asyncio.gather(*(by.charge(wish) for wish in wishes))
    assert {answer.status for answer in again} == {200}
    for first, later in zip(answers, again, strict=True):
        # A worker that outlived its parent for a moment may have lost its database by then.
        assert first is None or first.status in {200, 503}, first
        assert first is None or first.status == 503 or first.body == later.body
    assert_ledger_clean(site.data_dir)
