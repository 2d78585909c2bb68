"""A full queue refuses, and a caller who has left is not charged."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from time import perf_counter

import httpx2
import pytest
from tests.conftest import Stores, serving
from tests.processes import Server, Site, metric
from tests.races.conftest import Pair
from tests.races.inprocess import batch, charge_all, new_user
from tests.races.load import DEPOSIT, Answer, Caller, Wish, caller
from tests.races.truth import (
    assert_each_charged_once,
    assert_ledger_clean,
    charges_of,
    locked,
    wait_for_waiters,
)

from picopay.infra.db import Db
from picopay.infra.settings import Settings

QUEUE_MAX = 20
# A batch waits for its merchant for 250 ms, and is given up then, as if it had not begun.
BATCH_WAITS_SECONDS = 0.15


@pytest.fixture
async def narrow(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """The application with a short queue."""
    async with serving(settings, charge_queue_max=QUEUE_MAX) as client:
        yield client


async def test_beyond_the_queue_charges_are_told_to_come_again_and_the_rest_are_right(
    narrow: httpx2.AsyncClient, db: Db, stores: Stores
) -> None:
    user = await new_user(narrow, 1, 1000)
    wishes = [Wish.of(user) for _ in range(200)]

    answers = await charge_all(narrow, wishes)

    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 503}
    assert statuses[200] >= QUEUE_MAX
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["code"] == "overloaded"
            assert int(answer.headers["retry-after"]) >= 1
    made = [w for w, answer in zip(wishes, answers, strict=True) if answer.status_code == 200]
    refused = [w.key for w in wishes if w not in made]
    await assert_each_charged_once(stores.database_url, made, 1000)
    assert not await charges_of(stores.database_url, refused)
    await assert_ledger_clean(db)


async def test_after_an_overload_the_queue_takes_charges_again(
    narrow: httpx2.AsyncClient, stores: Stores
) -> None:
    user = await new_user(narrow, 1, 1000)
    wishes = [Wish.of(user) for _ in range(100)]
    left = wishes
    for _ in range(100):
        answers = await charge_all(narrow, left)
        left = [w for w, answer in zip(left, answers, strict=True) if answer.status_code == 503]
        if not left:
            break
    assert left == []
    await assert_each_charged_once(stores.database_url, wishes, 1000)


async def test_a_batch_request_larger_than_the_queue_is_refused_whole(
    narrow: httpx2.AsyncClient, stores: Stores
) -> None:
    user = await new_user(narrow, 1, 1000)
    wishes = [Wish.of(user) for _ in range(QUEUE_MAX + 1)]
    items = [{**wish.body(), "idempotency_key": wish.key} for wish in wishes]

    answer = await narrow.post("/v1/charges/batch", json={"charges": items})

    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert not await charges_of(stores.database_url, [wish.key for wish in wishes])
    assert [r["status"] for r in await batch(narrow, wishes[1:])] == ["success"] * QUEUE_MAX


@pytest.mark.kill
async def test_a_full_queue_refuses_at_the_door_on_a_connection_that_stays_good(site: Site) -> None:
    server = site.serve(environment={"CHARGE_QUEUE_MAX": str(QUEUE_MAX)})
    async with caller(server.url) as many, caller(server.url, connections=1) as one:
        users = await many.new_users(QUEUE_MAX + 1)
        last = Wish.of(users[-1])
        assert (await one.charge(Wish.of(users[-1]))).status == 200
        wishes = [Wish.of(user) for user in users[:-1]]
        async with locked(site.database_url, "merchant:default"):
            waiting = [asyncio.create_task(many.charge(wish)) for wish in wishes]
            await until_metric(server, "charge_queue_depth", QUEUE_MAX)
            refused = [await one.charge(last) for _ in range(3)]
        assert {(a.status, a.code, a.retry_after) for a in refused} == {(503, "overloaded", "1")}
        assert metric(server.port, "requests_shed_total") == 3
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}
        assert (await one.charge(last)).replayed is False
    await assert_each_charged_once(site.database_url, wishes, DEPOSIT)


async def until_metric(server: Server, name: str, value: float) -> None:
    async with asyncio.timeout(10):
        while await asyncio.to_thread(metric, server.port, name) != value:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)


@pytest.mark.kill
async def test_a_caller_who_left_before_its_batch_began_is_not_charged(pair: Pair) -> None:
    """He waited behind a batch that had begun; when he comes again, it is for the first time."""
    by = pair.callers[0]
    wishes = [Wish.of(user) for user in await by.new_users(60)]
    await asyncio.gather(*(by.charge(Wish.of(wish.user_id)) for wish in wishes))  # all known

    async with locked(pair.url, "merchant:default"):
        ahead = asyncio.create_task(by.charge(Wish.of(wishes[0].user_id)))
        await wait_for_waiters(pair.url, 1)
        await asyncio.sleep(1)  # by now nothing has begun any more: all wait aside
        left = await asyncio.gather(*(_leave_early(by, wish, 1.5) for wish in wishes))
        assert all(left)
    assert (await ahead).status == 200
    await _settled(by)
    assert not await charges_of(pair.url, [wish.key for wish in wishes])

    answers = await asyncio.gather(*(by.charge(wish) for wish in wishes))
    assert {(answer.status, answer.replayed) for answer in answers} == {(200, False)}
    made = await charges_of(pair.url, [wish.key for wish in wishes])
    assert made == Counter(wish.key for wish in wishes)


@pytest.mark.kill
async def test_the_charge_of_a_caller_who_left_after_its_batch_began_stands(pair: Pair) -> None:
    by = pair.callers[0]
    wish = await _left_in_its_batch(pair.url, by)
    await _settled(by)
    assert await charges_of(pair.url, [wish.key]) == {wish.key: 1}
    answer = await by.charge(wish)
    assert (answer.status, answer.replayed) == (200, True)
    await assert_each_charged_once(pair.url, [wish], 1_000_000)


async def _left_in_its_batch(url: str, by: Caller) -> Wish:
    """A charge whose caller leaves while its batch waits for the merchant."""
    while True:
        (user,) = await by.new_users(1)
        wish = Wish.of(user)
        async with locked(url, "merchant:default"):
            leaving = asyncio.create_task(by.charge(wish))
            await wait_for_waiters(url, 1)
            began = perf_counter()
            leaving.cancel()
            await asyncio.sleep(0.03)
        if perf_counter() - began < BATCH_WAITS_SECONDS:
            return wish


async def _leave_early(by: Caller, wish: Wish, seconds: float) -> bool:
    try:
        await by.charge(wish, timeout_seconds=seconds)
    except TimeoutError:
        return True
    return False


async def _settled(by: Caller) -> Answer:
    """What was under way has ended: a charge in the same lane is answered, and then some time."""
    (user,) = await by.new_users(1)
    answer = await by.charge(Wish.of(user))
    await asyncio.sleep(1)
    return answer
