"""Transaction webhooks at a steady rate on a real server, while its worker processes them."""

import asyncio
import time
from typing import Final

import orjson
from aiohttp import ClientSession
from contestants import Contestant, Wrong, check_money, prepare, running
from open_loop import steadily
from servers import Servers, number

CONTESTANT: Final = Contestant("webhooks", "picopay", "webhooks", 5)
DELAY_SECONDS: Final = 1
ACCOUNTS: Final = 1000
PROCESSED_SECONDS_MAX: Final = 60
_LEFT: Final = "SELECT count(*) FROM transfers WHERE status <> 'PROCESSED'"
# What each account should have by the list, beside what it has on the ledger.
_DIFFERENT: Final = """
WITH moved AS (
  SELECT 'external:' || source AS owner, -amount AS amount FROM transfers
   UNION ALL SELECT 'external:' || destination, amount FROM transfers
), listed AS (SELECT owner, sum(amount) AS amount FROM moved GROUP BY owner)
SELECT count(*) FROM listed
  LEFT JOIN accounts a ON a.owner = listed.owner AND a.currency = 'USD'
 WHERE a.credits - a.debits IS DISTINCT FROM listed.amount
"""


def steady(servers: Servers, per_second: int, seconds: int) -> list[float]:
    """How long each answer took, in seconds, counted from when its request was due."""
    prepare(servers, CONTESTANT)
    environment = {"TRANSACTION_PROCESSING_DELAY_SECONDS": str(DELAY_SECONDS)}
    with running(servers, CONTESTANT, environment) as server:
        latencies = asyncio.run(
            steadily(server.port, per_second=per_second, seconds=seconds, send=_send)
        )
        _wait_until_processed(servers, per_second * seconds)
        check_money(servers, CONTESTANT)
    return latencies


async def _send(session: ClientSession, index: int) -> None:
    body = {
        "transaction_id": f"txn_{index}",
        "source_account": f"acc_{index % ACCOUNTS}",
        "destination_account": f"acc_{(index * 7 + 1) % ACCOUNTS + ACCOUNTS}",
        "amount": 15.5,
        "currency": "USD",
    }
    async with session.post("/v1/webhooks/transactions", data=orjson.dumps(body)) as answer:
        await answer.read()
        if answer.status != 202:
            raise Wrong(f"a webhook was answered {answer.status}")


def _wait_until_processed(servers: Servers, sent: int) -> None:
    give_up_at = time.monotonic() + PROCESSED_SECONDS_MAX
    while left := number(servers, CONTESTANT.database, _LEFT):
        if time.monotonic() > give_up_at:
            raise Wrong(f"{left} transactions are not processed")
        time.sleep(0.25)
    kept = number(servers, CONTESTANT.database, "SELECT count(*) FROM transfers")
    if kept != sent:
        raise Wrong(f"{kept} transactions where {sent} were accepted")
    if different := number(servers, CONTESTANT.database, _DIFFERENT):
        raise Wrong(f"{different} accounts differ from the list of transactions")
