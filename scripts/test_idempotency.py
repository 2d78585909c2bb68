"""Ten concurrent charges of 100 USD with one key, on a running server: exactly one may count.

Exits 1 unless all ten are answered 200, one charge exists, and the balance fell by 100.00.
"""

import argparse
import asyncio
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import aiohttp

from picopay.cli.http import DEFAULT_URL, api_key, call, client

USER_ID = 1
AMOUNT = Decimal(100)
CALLERS = 10


async def balance(session: aiohttp.ClientSession) -> Decimal:
    async with session.get(f"/v1/users/{USER_ID}") as response:
        response.raise_for_status()
        user = await response.json()
    held = [b["balance"] for b in user["balances"] if b["currency"] == "USD"]
    return Decimal(str(held[0])) if held else Decimal(0)


async def records(session: aiohttp.ClientSession, key: str) -> int:
    """Successful charges stored under the key."""
    async with session.get("/v1/charges", params={"user_id": USER_ID, "limit": 100}) as response:
        response.raise_for_status()
        found = (await response.json())["data"]
    return sum(charge["idempotency_key"] == key for charge in found)


async def run(url: str, key: str) -> bool:
    idempotency_key = str(uuid4())
    body = {"user_id": USER_ID, "amount": str(AMOUNT), "currency": "USD"}
    async with client(url, key, CALLERS) as session:
        before = await balance(session)
        if before < AMOUNT:
            raise SystemExit(f"user {USER_ID} has {before} USD: run scripts/setup_test_user.py")
        calls = (call(session, "/charge", body, idempotency_key) for _ in range(CALLERS))
        answers = await asyncio.gather(*calls)
        after = await balance(session)
        count = await records(session, idempotency_key)
    answered = sum(status == 200 for status, _, _ in answers)  # noqa: PLR2004 - HTTP's own
    passed = answered == CALLERS and count == 1 and before - after == AMOUNT
    print(f"initial balance     {before}")
    print(f"final balance       {after}")
    print(f"expected balance    {before - AMOUNT}")
    print(f"answered 200        {answered}/{CALLERS}")
    print(f"successful records  {count}")
    print("PASSED" if passed else "FAILED")
    return passed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--key", default=None, help="API key; default APP_API_KEY or the data's")
    parser.add_argument("--data-dir", type=Path, default=None)
    given = parser.parse_args()
    passed = asyncio.run(run(given.url, api_key(given.key, given.data_dir)))
    raise SystemExit(0 if passed else 1)
