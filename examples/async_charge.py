"""Charge many users at once, over a few connections that are used again and again.

PICOPAY_URL=http://localhost:8000 PICOPAY_API_KEY=… python examples/async_charge.py 1 2 3
"""

import asyncio
import os
import sys
from decimal import Decimal

from picopay.client.aio import AsyncClient
from picopay.client.errors import Declined, NotFound

PRICE = Decimal("5.00")


async def charge(picopay: AsyncClient, user_id: int) -> str:
    try:
        made = await picopay.charges.create(user_id=user_id, amount=PRICE, currency="USD")
    except Declined as declined:
        return f"user {user_id}: {declined.code}"
    except NotFound:
        return f"user {user_id}: nobody of that name"
    return f"user {user_id}: {made.new_balance.text} USD are left"


async def main(user_ids: list[int]) -> None:
    url, key = os.environ["PICOPAY_URL"], os.environ["PICOPAY_API_KEY"]
    async with AsyncClient(url, api_key=key) as picopay:
        for line in await asyncio.gather(*(charge(picopay, user_id) for user_id in user_ids)):
            print(line)


if __name__ == "__main__":
    asyncio.run(main([int(text) for text in sys.argv[1:]]))
