"""Ten concurrent charges of 100 USD with one key, on a running server: exactly one may count.

Exits 1 unless all ten are answered 200, one charge exists, and the balance fell by 100.00.
"""

import argparse
import asyncio
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

from picopay.cli.errors import CommandFailed
from picopay.cli.http import DEFAULT_URL, api_key, call, client

USER_ID = 1
AMOUNT = Decimal(100)
CALLERS = 10


async def get(session: aiohttp.ClientSession, path: str, **query: str | int) -> Any:  # noqa: ANN401 - JSON
    async with session.get(path, params=query) as response:
        answer = await response.json()
        if response.status != HTTPStatus.OK:
            raise CommandFailed(f"{path} answered {response.status}: {answer.get('detail')}")
        return answer


async def balance(session: aiohttp.ClientSession) -> Decimal:
    user = await get(session, f"/v1/users/{USER_ID}")
    held = [b["balance"] for b in user["balances"] if b["currency"] == "USD"]
    return Decimal(str(held[0])) if held else Decimal(0)


async def records(session: aiohttp.ClientSession, key: str) -> int:
    """Successful charges stored under the key."""
    found = (await get(session, "/v1/charges", user_id=USER_ID, limit=100))["data"]
    return sum(charge["idempotency_key"] == key for charge in found)


async def run(url: str, key: str) -> bool:
    idempotency_key = str(uuid4())
    body = {"user_id": USER_ID, "amount": str(AMOUNT), "currency": "USD"}
    async with client(url, key, CALLERS) as session:
        before = await balance(session)
        if before < AMOUNT:
            raise CommandFailed(f"user {USER_ID} has {before} USD: run scripts/setup_test_user.py")
        calls = (call(session, "/charge", body, idempotency_key) for _ in range(CALLERS))
        answers = await asyncio.gather(*calls)
        after = await balance(session)
        count = await records(session, idempotency_key)
    answered = sum(status == HTTPStatus.OK for status, _, _ in answers)
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
    try:
        passed = asyncio.run(run(given.url, api_key(given.key, given.data_dir)))
    except CommandFailed as failed:
        raise SystemExit(str(failed)) from None
    raise SystemExit(0 if passed else 1)
