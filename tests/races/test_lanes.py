"""Who waits for a locked merchant, or comes in bulk, delays nobody else's single charges."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from random import Random
from uuid import uuid4

import pytest
from tests.processes import assert_ledger_clean, picopay
from tests.races.conftest import BestP99, Pair
from tests.races.load import (
    DEPOSIT,
    P99_MS_MAX,
    Answer,
    Caller,
    Wish,
    caller,
    measure,
    measured_figure,
    p99_ms,
    paced,
    until,
)
from tests.races.truth import assert_each_charged_once, connected, locked

pytestmark = [
    pytest.mark.kill,
    pytest.mark.usefixtures("quiet"),
    pytest.mark.timeout(600),  # by night it waits for minutes of others' kills
]

LOCKED_SECONDS = 5
# So long a main lane itself waits for a merchant, once; then it is watched. PostgreSQL counts
# its 250 ms twice when another process waits too: for the place in the queue, and for the row.
GIVEN_UP_SECONDS = 0.6
BULK = 2000
BESIDE_BULK_P99_MS_MAX = 250


@dataclass(frozen=True)
class Shop:
    """A merchant besides the default one, at both processes."""

    merchant_id: str
    callers: tuple[Caller, Caller]

    @property
    def account(self) -> str:
        return f"merchant:{self.merchant_id}"


@pytest.fixture
async def shop(pair: Pair) -> AsyncIterator[Shop]:
    """It has taken dollars and euros before."""
    merchant_id = f"shop-{uuid4().hex[:8]}"
    create = ("keys", "create", "shop", "--merchant", merchant_id)
    key = (await asyncio.to_thread(picopay, pair.site.data_dir, *create))["key"]
    one, other = (server.url for server in pair.servers)
    async with caller(one, key) as first, caller(other, key) as second:
        for currency in ("USD", "EUR"):
            (user,) = await first.new_users(1, currency=currency)
            for by in (first, second):
                assert (await by.charge(Wish.of(user, currency=currency))).status == 200
        yield Shop(merchant_id, (first, second))


async def test_a_locked_merchant_delays_only_its_own_charges_in_that_currency(
    pair: Pair, shop: Shop, best_p99: BestP99
) -> None:
    by = pair.callers[0]
    waiting, others = await by.new_users(50), await by.new_users(50)
    europeans = await by.new_users(50, currency="EUR")
    wishes: list[Wish] = []

    async def measured() -> list[Answer]:
        mine = Wish.in_turn(waiting, 40 * (LOCKED_SECONDS - 1))
        wishes.extend(mine)
        async with locked(pair.url, shop.account):
            late = asyncio.create_task(paced(shop.callers, mine, per_second=40))
            await asyncio.sleep(GIVEN_UP_SECONDS)
            seconds = LOCKED_SECONDS - GIVEN_UP_SECONDS
            dollars, euros = await asyncio.gather(
                measure(pair.callers, others, seconds),
                measure(shop.callers, europeans, seconds, "EUR"),
            )
            assert not late.done()
        assert {answer.status for answer in await late} == {200}
        measured_figure("other_merchant_p99_ms", p99_ms(dollars))
        measured_figure("other_currency_p99_ms", p99_ms(euros))
        return max(dollars, euros, key=p99_ms)

    assert await best_p99(measured) < P99_MS_MAX
    await assert_each_charged_once(pair.url, wishes, DEPOSIT)


async def test_a_bulk_request_under_way_hardly_delays_single_charges(
    pair: Pair, best_p99: BestP99
) -> None:
    payers, others = await pair.callers[0].new_users(50), await pair.callers[0].new_users(50)
    made: list[Wish] = []

    async def bulk() -> int:
        wishes = Wish.in_turn(payers, BULK)
        assert {result["status"] for result in await pair.callers[0].batch(wishes)} == {"success"}
        made.extend(wishes)
        return len(wishes)

    async def measured() -> list[Answer]:
        end = asyncio.Event()
        load = asyncio.create_task(until(end, bulk, 1))
        answers = await measure(pair.callers, others, 4)
        end.set()
        measured_figure("bulk_charges", sum(await load))
        return answers

    assert await best_p99(measured, BESIDE_BULK_P99_MS_MAX) < BESIDE_BULK_P99_MS_MAX
    assert len(made) > BULK
    await assert_each_charged_once(pair.url, made, DEPOSIT)


async def test_bulk_requests_over_the_same_payers_at_two_processes_all_succeed(
    pair: Pair,
) -> None:
    users = await pair.callers[0].new_users(20)
    requests = [_shuffled(Wish.in_turn(users, BULK), seed) for seed in range(4)]

    results = await asyncio.gather(
        *(by.batch(wishes) for by, wishes in zip(pair.callers * 2, requests, strict=True))
    )

    assert {result["status"] for answer in results for result in answer} == {"success"}
    wishes = [wish for request in requests for wish in request]
    await assert_each_charged_once(pair.url, wishes, DEPOSIT)
    assert await _credited(pair.url, users) == 100 * len(wishes)
    assert "deadlock" not in (pair.site.data_dir / "postgres.log").read_text()
    assert_ledger_clean(pair.site.data_dir)


def _shuffled(wishes: Sequence[Wish], seed: int) -> list[Wish]:
    return Random(seed).sample(wishes, len(wishes))  # noqa: S311 - not for secrets


async def _credited(url: str, users: Sequence[int]) -> int:
    """What the merchant has received from the users, in minor units."""
    async with connected(url) as connection:
        total = await connection.fetchval(
            "SELECT sum(amount) FROM postings"
            " WHERE credit_owner = 'merchant:default' AND debit_owner = ANY($1)",
            [f"user:{user}" for user in users],
        )
    return int(total)
