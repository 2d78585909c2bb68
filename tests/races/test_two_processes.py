"""Duplicates that reach two server processes with one database."""

import asyncio
from collections import Counter
from uuid import uuid4

import pytest
from tests.races.conftest import Pair
from tests.races.load import Wish
from tests.races.truth import assert_each_charged_once, charges_of

pytestmark = pytest.mark.kill

TRIALS = 100


async def test_duplicates_across_two_processes_charge_once_and_are_answered_alike(
    pair: Pair,
) -> None:
    first, second = pair.callers
    (user,) = await first.new_users(1, 1000)
    wish = Wish.of(user, 100)

    answers = await asyncio.gather(
        *(caller.charge(wish) for caller in (first, second) for _ in range(100))
    )

    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    await assert_each_charged_once(pair.url, [wish], 1000)


async def test_a_duplicate_of_a_charge_that_took_all_is_never_told_insufficient_balance(
    pair: Pair,
) -> None:
    """Source defect S1-03: balance = amount, 10 duplicates, 89 of 100 trials told some 400."""
    first, second = pair.callers
    wishes = [Wish.of(user, 100) for user in await first.new_users(TRIALS, 100)]
    for wish in wishes:
        answers = await asyncio.gather(*(caller.charge(wish) for caller in (first, second) * 5))
        assert {answer.status for answer in answers} == {200}, answers
        assert len({answer.body for answer in answers}) == 1
    await assert_each_charged_once(pair.url, wishes, 100)


async def test_batches_with_the_same_keys_at_two_processes_charge_once(pair: Pair) -> None:
    first, second = pair.callers
    users = await first.new_users(20)
    wishes = [Wish.of(user) for user in users for _ in range(25)]

    results = await asyncio.gather(
        first.batch(wishes), second.batch(wishes[::-1]), first.batch(wishes), second.batch(wishes)
    )

    made = Counter(result["status"] for answer in results for result in answer)
    assert made == {"success": 500, "replayed": 1500}
    await assert_each_charged_once(pair.url, wishes, 1_000_000)


async def test_one_key_for_two_users_at_two_processes_charges_one_of_them(pair: Pair) -> None:
    first, second = pair.callers
    one, other = await first.new_users(2)
    keys = [str(uuid4()) for _ in range(50)]
    for key in keys:
        answers = await asyncio.gather(
            first.charge(Wish(one, 1, key)), second.charge(Wish(other, 1, key))
        )
        assert sorted(answer.status for answer in answers) == [200, 422], answers
        (lost,) = (answer for answer in answers if answer.status == 422)
        assert lost.json["mismatched_fields"] == ["user_id"]
    assert await charges_of(pair.url, keys) == Counter(keys)


async def test_a_balance_for_100_charges_is_spent_exactly_once_by_two_processes(
    pair: Pair,
) -> None:
    (user,) = await pair.callers[0].new_users(1, 1000)
    wishes = [Wish.of(user, 10) for _ in range(500)]

    answers = await asyncio.gather(
        *(pair.callers[i % 2].charge(wish) for i, wish in enumerate(wishes))
    )

    assert Counter(answer.status for answer in answers) == {200: 100, 400: 400}
    made = [w for w, answer in zip(wishes, answers, strict=True) if answer.status == 200]
    await assert_each_charged_once(pair.url, made, 1000)
