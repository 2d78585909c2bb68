"""One charge that PostgreSQL refuses to store fails alone: its neighbours never notice."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx2
import pytest
from tests.conftest import Stores, serving
from tests.races.inprocess import batch, charge, charge_all, new_user
from tests.races.load import Wish
from tests.races.truth import (
    assert_each_charged_once,
    assert_ledger_clean,
    charges_of,
    connected,
    locked,
)

from picopay.infra.db import Db
from picopay.infra.settings import Settings

POISON = 666


@pytest.fixture
async def poisoned_url(clean: Stores, owner: asyncpg.Connection) -> AsyncIterator[str]:
    """A database in which one amount cannot be stored, for as long as a test."""
    await owner.execute(
        f"ALTER TABLE charges ADD CONSTRAINT poison CHECK (amount <> {100 * POISON})"
    )
    yield clean.database_url
    await owner.execute("ALTER TABLE charges DROP CONSTRAINT IF EXISTS poison")


@pytest.fixture
async def poisoned(poisoned_url: str, settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    assert settings.database_url == poisoned_url
    async with serving(settings) as client:
        yield client


async def assert_nothing_written(url: str, wish: Wish) -> None:
    async with connected(url) as connection:
        assert not await charges_of(url, [wish.key])
        keys = "SELECT count(*) FROM idempotency_keys WHERE key = $1"
        assert await connection.fetchval(keys, wish.key) == 0
        postings = "SELECT count(*) FROM postings WHERE amount = $1"
        assert await connection.fetchval(postings, 100 * wish.amount) == 0


@pytest.mark.parametrize("position", [0, 30, 59])
async def test_a_poisoned_charge_in_a_burst_fails_alone(
    poisoned: httpx2.AsyncClient, poisoned_url: str, position: int
) -> None:
    users = [await new_user(poisoned, user, 1000) for user in range(1, 7)]
    wishes = [Wish.of(users[i % 6]) for i in range(60)]
    bad = wishes[position] = Wish.of(users[position % 6], POISON)

    answers = await charge_all(poisoned, wishes)

    assert answers[position].status_code == 500
    assert answers[position].json()["code"] == "internal-error"
    assert "poison" not in answers[position].text
    assert [a.status_code for a in answers].count(200) == 59
    await assert_nothing_written(poisoned_url, bad)
    neighbours = [wish for wish in wishes if wish is not bad]
    await assert_each_charged_once(poisoned_url, neighbours, 1000)
    db = Db(poisoned_url)
    await assert_ledger_clean(db)
    await db.close()


async def test_a_poisoned_item_of_a_batch_request_fails_alone(
    poisoned: httpx2.AsyncClient, poisoned_url: str
) -> None:
    user = await new_user(poisoned, 1, 10_000)
    wishes = [Wish.of(user) for _ in range(400)]
    bad = wishes[300] = Wish.of(user, POISON)

    results = await batch(poisoned, wishes)

    assert [i for i, result in enumerate(results) if result["status"] != "success"] == [300]
    assert results[300]["problem"]["code"] == "internal-error"
    await assert_nothing_written(poisoned_url, bad)
    await assert_each_charged_once(
        poisoned_url, [wish for wish in wishes if wish is not bad], 10_000
    )


async def test_the_key_of_a_poisoned_charge_stays_free(
    poisoned: httpx2.AsyncClient, poisoned_url: str
) -> None:
    wish = Wish.of(await new_user(poisoned, 1, 1000), POISON)
    assert (await charge(poisoned, wish)).status_code == 500
    async with connected(poisoned_url) as owner:
        await owner.execute("ALTER TABLE charges DROP CONSTRAINT poison")
    assert (await charge(poisoned, wish)).status_code == 200
    await assert_each_charged_once(poisoned_url, [wish], 1000)


async def test_a_poisoned_charge_that_waits_for_a_locked_payer_fails_alone(
    poisoned: httpx2.AsyncClient, poisoned_url: str
) -> None:
    """Where late charges are asked for again, too."""
    users = [await new_user(poisoned, number, 1000) for number in (1, 2)]
    wishes = [Wish.of(users[0]) for _ in range(12)]
    bad = wishes[5] = Wish.of(users[0], POISON)
    async with locked(poisoned_url, *(f"user:{user}" for user in users)):
        wishes.append(Wish.of(users[1]))
        calls = [asyncio.create_task(charge(poisoned, wish)) for wish in wishes]
        done, _ = await asyncio.wait(calls, timeout=0.5)
        assert not done

    answers = await asyncio.gather(*calls)

    assert answers[5].json()["code"] == "internal-error"
    assert [answer.status_code for answer in answers].count(200) == 12
    await assert_nothing_written(poisoned_url, bad)
    neighbours = [wish for wish in wishes if wish is not bad]
    await assert_each_charged_once(poisoned_url, neighbours, 1000)
