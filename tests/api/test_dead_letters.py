"""Dead letters over HTTP: for operators alone, and what they decide is noted."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx2
import pytest
from tests.api.steps import a_key, problem
from tests.api.test_transactions import PATH, a_transaction
from tests.conftest import serving
from tests.integration.outbox.workers import drained

from picopay.access.model import Scope
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.infra.settings import Settings
from picopay.outbox import dead_letters
from picopay.outbox.model import Chosen, Note, Resolution

LETTERS = "/v1/admin/dead-letters"


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """Of an application that works in the background, without delay or patience."""
    async with serving(
        settings,
        picopay_worker=True,
        transaction_processing_delay_seconds=0,
        outbox_max_attempts=1,
    ) as client:
        yield client


@pytest.fixture
async def letter(client: httpx2.AsyncClient, owner: asyncpg.Connection) -> dict[str, Any]:
    """Of a transaction that could not be posted: its source's totals were full."""
    await owner.execute(
        "INSERT INTO accounts (owner, currency, may_overdraw, debits, credits, version)"
        " VALUES ('external:acc_user_1', 'INR', true, 9223372036854775807, 0, 1)"
    )
    assert (await client.post(PATH, json=a_transaction())).status_code == 202
    await drained(owner)
    (letter,) = (await client.get(LETTERS)).json()["data"]
    return letter


async def status(client: httpx2.AsyncClient) -> str:
    return (await client.get("/v1/transactions/txn_abc123")).json()["status"]


async def test_what_was_given_up_is_shown_with_why(
    client: httpx2.AsyncClient, letter: dict[str, Any]
) -> None:
    assert await status(client) == "FAILED"
    assert (letter["consumer"], letter["type"]) == ("transfers", "transfer.received")
    assert (letter["reason"], letter["attempts"], letter["resolution"]) == ("rejected", 1, None)
    assert "account-limit" in letter["error"]
    shown = (await client.get(f"{LETTERS}/{letter['id']}")).json()
    assert shown["letter"] == letter
    assert shown["body"]["transaction_id"] == "txn_abc123"
    problem(await client.get(f"{LETTERS}/{new_id()}"), 404, "dead-letter-not-found")


async def test_a_replay_processes_it_once_the_cause_is_mended(
    client: httpx2.AsyncClient, letter: dict[str, Any], owner: asyncpg.Connection
) -> None:
    await owner.execute("DELETE FROM accounts")
    dry = {"ids": [letter["id"]], "note": "the account is mended", "dry_run": True}
    counted = await client.post(f"{LETTERS}/replay", json=dry)
    assert counted.json() == {"matched": 1, "resolved": 0, "dry_run": True}
    assert await status(client) == "FAILED"
    done = await client.post(f"{LETTERS}/replay", json=dry | {"dry_run": False})
    assert done.json() == {"matched": 1, "resolved": 1, "dry_run": False}
    await drained(owner)
    assert await status(client) == "PROCESSED"
    (resolved,) = (await client.get(LETTERS, params={"resolved": "true"})).json()["data"]
    assert (resolved["resolution"], resolved["resolved_by"]) == ("replayed", "key:bootstrap")
    assert (await client.get(LETTERS)).json()["data"] == []


async def test_a_discarded_one_stays_given_up(
    client: httpx2.AsyncClient, letter: dict[str, Any], owner: asyncpg.Connection
) -> None:
    body = {"reason": letter["reason"], "note": "a test"}
    assert (await client.post(f"{LETTERS}/discard", json=body)).json()["resolved"] == 1
    assert await status(client) == "FAILED"
    assert await owner.fetchval("SELECT count(*) FROM outbox_queue") == 0
    again = await client.post(f"{LETTERS}/discard", json=body)
    assert again.json()["resolved"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {"note": "which?"},
        {"all": True, "consumer": "transfers", "note": "both"},
        {"all": True},
        {"all": True, "note": ""},
        {"ids": [], "note": "none"},
        {"ids": ["x"], "note": "no id"},
        {"all": True, "note": "too quick", "per_second": 0},
        {"all": True, "note": "too slow", "per_second": 1e-320},
        {"died_after": "0001-01-01T00:00:00+14:00", "note": "before all time"},
        {"died_before": "9999-12-31T23:59:59-12:00", "note": "after all time"},
    ],
)
async def test_who_does_not_say_which_and_why_is_told(
    client: httpx2.AsyncClient, body: dict[str, Any]
) -> None:
    problem(await client.post(f"{LETTERS}/replay", json=body), 422, "validation")


async def test_what_dies_while_others_are_resolved_is_left_open(
    db: Db, owner: asyncpg.Connection, letter: dict[str, Any]
) -> None:
    await owner.execute("UPDATE dead_letters SET died_at = now() + interval '1 s'")
    note = Note("me", Resolution.DISCARDED, "a test")
    assert await dead_letters.resolve(db, Chosen(), note) == 0
    await owner.execute("UPDATE dead_letters SET died_at = now() - interval '1 s'")
    assert await dead_letters.resolve(db, Chosen(), note) == 1


async def test_only_operators_may_look_or_decide(client: httpx2.AsyncClient, db: Db) -> None:
    narrow = await a_key(db, scopes=set(Scope) - {Scope.ADMIN})
    body = {"all": True, "note": "x"}
    for answer in (
        await client.get(LETTERS, headers=narrow),
        await client.get(f"{LETTERS}/{new_id()}", headers=narrow),
        await client.post(f"{LETTERS}/replay", json=body, headers=narrow),
        await client.post(f"{LETTERS}/discard", json=body, headers=narrow),
    ):
        problem(answer, 403, "scope-missing")
