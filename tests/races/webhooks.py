"""Who tells of transactions, many at once, and what became of all of them."""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any
from uuid import uuid4

from tests.processes import Site, assert_ledger_clean
from tests.races.load import Answer, Caller
from tests.races.truth import connected

PATH = "/v1/webhooks/transactions"
Body = dict[str, Any]


def transactions(number: int) -> list[Body]:
    """Between accounts that no other test knows, and of every amount another."""
    prefix = uuid4().hex
    return [
        {
            "transaction_id": f"{prefix}-{n}",
            "source_account": f"{prefix}-source-{n % 5}",
            "destination_account": f"{prefix}-destination-{n % 3}",
            "amount": n + 1,
            "currency": "INR",
        }
        for n in range(number)
    ]


async def send_all(by: Caller, bodies: Sequence[Body]) -> list[Answer]:
    """All at once."""
    return list(await asyncio.gather(*(by.post(PATH, body) for body in bodies)))


async def listed(by: Caller, **query: str) -> list[Body]:
    """Every page."""
    found: list[Body] = []
    cursor: dict[str, str] = {}
    while True:
        page = await by.get("/v1/transactions", limit="100", **query, **cursor)
        found += page["data"]
        if not page["has_more"]:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def until_processed(url: str, number: int, seconds: float) -> None:
    give_up_at = monotonic() + seconds
    query = "SELECT status, count(*) FROM transfers GROUP BY 1"
    async with connected(url) as owner:
        while (found := {row[0]: row[1] for row in await owner.fetch(query)}) != {
            "PROCESSED": number
        }:
            assert monotonic() < give_up_at, found
            await asyncio.sleep(0.05)


async def assert_each_is_posted_once(site: Site, bodies: Sequence[Body]) -> None:
    async with connected(site.database_url) as owner:
        rows = await owner.fetch(
            """SELECT t.transaction_id, p.debit_owner, p.credit_owner, p.amount
                 FROM transfers t JOIN postings p ON p.id = t.id WHERE p.kind = 'transfer'"""
        )
        events = await owner.fetchval("SELECT count(*) FROM outbox_events")
        owed = await owner.fetchval("SELECT count(*) FROM outbox_queue")
    assert sorted(map(tuple, rows)) == sorted(
        (
            body["transaction_id"],
            f"external:{body['source_account']}",
            f"external:{body['destination_account']}",
            100 * body["amount"],
        )
        for body in bodies
    )
    assert (events, owed) == (len(bodies), 0)
    assert_ledger_clean(site.data_dir)
