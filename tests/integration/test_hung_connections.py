"""A connection that falls silent is given up in time, and what it was used for is done once.

All times are a tenth of what they are outside of tests.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partialmethod
from itertools import product
from time import perf_counter
from typing import Final, NamedTuple
from uuid import uuid4

import httpx2
import pytest
from _pytest.mark.structures import ParameterSet
from tests.conftest import serving
from tests.integration.proxies import Hole, PostgresProxy
from tests.races.inprocess import charge, new_user
from tests.races.load import Wish, measured_figure
from tests.races.truth import assert_ledger_clean

from picopay.charges import lanes
from picopay.infra import db as infra
from picopay.infra import sessions
from picopay.infra.db import (
    BOUNDARY_TIMEOUT_SECONDS,
    COMMAND_TIMEOUT_SECONDS,
    LOST_DATABASE_SECONDS,
    Db,
)
from picopay.infra.settings import Settings
from picopay.users import service as users

SCALE: Final = 10
# Once in vain, some patience, and in vain again.
TOLD_SECONDS_MAX: Final = (
    2 * (COMMAND_TIMEOUT_SECONDS + BOUNDARY_TIMEOUT_SECONDS) + LOST_DATABASE_SECONDS
) / SCALE
DONE_SECONDS_MAX: Final = 10

KEY: Final = str(uuid4())
# When the key is claimed, in the middle of the transaction, and at its end.
MOMENTS = {"claim": KEY.encode(), "commit": b"COMMIT\x00"}
# How often it may have been done by then, for each code of the answer.
DONE: dict[str | None, set[int]] = {
    None: {1},
    "database-unavailable": {0},
    "outcome-unknown": {0, 1},
}


class Wanted(NamedTuple):
    path: str
    body: dict[str, object]
    change_minor: int  # of the user's balance

    async def ask(self, client: httpx2.AsyncClient) -> httpx2.Response:
        return await client.post(self.path, json=self.body, headers={"Idempotency-Key": KEY})

    async def insist(self, client: httpx2.AsyncClient) -> None:
        """As a client does who was told to come again."""
        give_up_at = perf_counter() + DONE_SECONDS_MAX
        while (answer := await self.ask(client)).status_code == 503:
            assert perf_counter() < give_up_at, answer.text
            await asyncio.sleep(0.1)
        assert answer.status_code in {200, 201}, answer.text


MONEY = {"amount": 10, "currency": "USD"}
CHARGE = Wanted("/charge", {"user_id": 1, **MONEY}, -1000)
DEPOSIT = Wanted("/v1/users/1/deposits", {**MONEY}, 1000)


async def balance(db: Db) -> int:
    _, (account,) = await users.show(db, 1)
    return account.balance


@pytest.fixture
async def client(
    settings: Settings, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx2.AsyncClient]:
    """Of the application behind a network that may fall silent, in a tenth of its time."""
    scaled = partialmethod(Db.__init__, command_timeout_seconds=COMMAND_TIMEOUT_SECONDS / SCALE)
    session = {"idle_in_transaction_session_timeout": "1s", "statement_timeout": "1200ms"}
    monkeypatch.setattr(Db, "__init__", scaled)
    for name in ("CONNECT", "RESERVED", "BOUNDARY"):
        in_full = getattr(infra, f"{name}_TIMEOUT_SECONDS")
        monkeypatch.setattr(infra, f"{name}_TIMEOUT_SECONDS", in_full / SCALE)
    for of_pool in (sessions.REQUESTS, sessions.RESERVED):
        for name, value in session.items():
            monkeypatch.setitem(of_pool.settings, name, value)
    async with serving(settings, database_url=proxy.url, redis_url=None) as client:
        await new_user(client, 1, 1000)
        assert (await charge(client, Wish.of(1))).status_code == 200
        # Only now: on a busy machine a start may take longer.
        monkeypatch.setattr(Db.retrying, "__defaults__", (LOST_DATABASE_SECONDS / SCALE,))
        monkeypatch.setattr(lanes, "LOST_DATABASE_SECONDS", LOST_DATABASE_SECONDS / SCALE)
        yield client


HOLES = {
    f"{moment}-{'heard' if heard else 'unheard'}-{'all' if swallows_all else 'one'}": Hole(
        at, heard=heard, swallows_all=swallows_all
    )
    for (moment, at), heard, swallows_all in product(MOMENTS.items(), (False, True), (False, True))
}


WANTED = {"charge": CHARGE, "deposit": DEPOSIT}


def cases() -> Iterator[ParameterSet]:
    """Every day half of them: any three of the four things that differ meet in each way."""
    for (hole_name, hole), (name, wanted) in product(HOLES.items(), WANTED.items()):
        parity = (hole.at == MOMENTS["claim"]) ^ hole.heard ^ hole.swallows_all ^ (wanted is CHARGE)
        marks = [pytest.mark.nightly] if parity else []
        yield pytest.param(wanted, hole, id=f"{hole_name}-{name}", marks=marks)


@pytest.mark.parametrize(("wanted", "hole"), list(cases()))
async def test_what_a_silent_connection_was_used_for_is_answered_in_time_and_done_once(
    db: Db, client: httpx2.AsyncClient, proxy: PostgresProxy, wanted: Wanted, hole: Hole
) -> None:
    before = await balance(db)
    proxy.hole = hole

    started = perf_counter()
    answer = await wanted.ask(client)
    took = perf_counter() - started

    assert proxy.swallowed
    done = (await balance(db) - before) / wanted.change_minor
    measured_figure(f"{answer.status_code} {answer.json().get('code')} {done} told_seconds", took)
    assert took < TOLD_SECONDS_MAX
    assert done in DONE[answer.json().get("code")]
    assert hole.swallows_all or answer.is_success
    proxy.come_back()
    await wanted.insist(client)
    assert await balance(db) == before + wanted.change_minor
    await assert_ledger_clean(db)
