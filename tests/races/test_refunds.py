"""Refunds that reach two server processes with one database."""

import asyncio
from collections import Counter
from uuid import uuid4

import pytest
from tests.races.conftest import Pair
from tests.races.load import Answer, Caller, Wish
from tests.races.truth import assert_ledger_clean, balance, connected, locked

from picopay.infra.db import Db

pytestmark = pytest.mark.kill


async def charged(by: Caller, user: int, amount: int = 100) -> str:
    """The path of a new charge's refunds."""
    answer = await by.charge(Wish.of(user, amount))
    assert answer.status == 200, answer
    return f"/v1/charges/{answer.json['transaction']['id']}/refunds"


async def refund(by: Caller, path: str, body: object, key: str | None = None) -> Answer:
    return await by.post(path, body, {"Idempotency-Key": key or str(uuid4())})


async def assert_refunded(pair: Pair, path: str, minor: int) -> None:
    """In the charge's count, in its refunds and in their postings; and the ledger is clean."""
    async with connected(pair.url) as connection:
        row = await connection.fetchrow(
            "SELECT c.refunded, (SELECT sum(amount)::bigint FROM charge_refunds r"
            " JOIN postings p USING (id, amount) WHERE r.charge_id = c.id)"
            " FROM charges c WHERE c.id = $1",
            path.split("/")[3],
        )
    assert row is not None
    assert tuple(row) == (minor, minor)
    db = Db(pair.url)
    await assert_ledger_clean(db)
    await db.close()


async def test_partial_refunds_at_two_processes_never_exceed_the_charge(pair: Pair) -> None:
    (user,) = await pair.callers[0].new_users(1, 1000)
    path = await charged(pair.callers[0], user)

    answers = await asyncio.gather(
        *(refund(pair.callers[n % 2], path, {"amount": 3}) for n in range(50))
    )

    assert Counter(answer.status for answer in answers) == {201: 33, 409: 17}
    assert {a.json["refundable"] for a in answers if a.status == 409} == {1}
    assert await balance(pair.url, user) == 99_900
    await assert_refunded(pair, path, 9900)


async def test_one_key_at_two_processes_is_one_refund_and_one_answer(pair: Pair) -> None:
    (user,) = await pair.callers[0].new_users(1, 1000)
    path, key = await charged(pair.callers[0], user), str(uuid4())

    answers = await asyncio.gather(
        *(refund(pair.callers[n % 2], path, {"amount": 7}, key) for n in range(10))
    )

    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    await assert_refunded(pair, path, 700)


async def test_refunds_and_charges_of_one_user_at_two_processes_lose_nothing(pair: Pair) -> None:
    first, _ = pair.callers
    (user,) = await first.new_users(1, 1000)
    path = await charged(first, user)
    wishes = [Wish.of(user, 2) for _ in range(200)]

    charges, refunds = await asyncio.gather(
        asyncio.gather(*(pair.callers[n % 2].charge(w) for n, w in enumerate(wishes))),
        asyncio.gather(*(refund(pair.callers[n % 2], path, {"amount": 1}) for n in range(100))),
    )

    assert {answer.status for answer in charges} == {200}
    assert {answer.status for answer in refunds} == {201}
    assert await balance(pair.url, user) == 100_000 - 40_000
    await assert_refunded(pair, path, 10_000)


async def test_a_user_of_whom_all_was_taken_may_spend_what_comes_back(pair: Pair) -> None:
    first, second = pair.callers
    (user,) = await first.new_users(1, 100)
    path = await charged(first, user)
    assert (await second.charge(Wish.of(user, 1))).status == 400
    assert (await refund(first, path, {"amount": 60})).status == 201
    spent = await asyncio.gather(*(second.charge(Wish.of(user, 20)) for _ in range(5)))
    assert Counter(answer.status for answer in spent) == {200: 3, 400: 2}
    await assert_refunded(pair, path, 6000)


async def test_refunds_of_a_locked_merchant_hold_up_nobody_who_does_not_need_it(
    pair: Pair,
) -> None:
    """Not deposits, reads or other merchants' refunds: connections are left for all of them."""
    first, _ = pair.callers
    (user,) = await first.new_users(1, 1000)
    path = await charged(first, user)
    async with locked(pair.url, "merchant:default"):
        waiting = [asyncio.create_task(refund(first, path, {"amount": 1})) for _ in range(40)]
        await asyncio.sleep(1)
        async with asyncio.timeout(2):
            assert len(await first.new_users(5)) == 5
            assert (await first.get(path))["data"] == []
        assert not any(task.done() for task in waiting)
    answers = await asyncio.gather(*waiting)
    made = Counter(answer.status for answer in answers)[201]
    assert made >= 4
    assert {answer.status for answer in answers} <= {201, 503}
    await assert_refunded(pair, path, 100 * made)


async def test_refunds_of_a_locked_user_hold_up_no_other_refund_of_the_merchant(
    pair: Pair,
) -> None:
    first, _ = pair.callers
    stuck, user = await first.new_users(2, 1000)
    stuck_path, path = await charged(first, stuck), await charged(first, user)
    async with locked(pair.url, f"user:{stuck}"):
        waiting = [asyncio.create_task(refund(first, stuck_path, {"amount": 1})) for _ in range(10)]
        await asyncio.sleep(1)
        async with asyncio.timeout(4):
            assert (await refund(first, path, {"amount": 1})).status == 201
        assert not any(task.done() for task in waiting)
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {201}
    await assert_refunded(pair, stuck_path, 1000)
