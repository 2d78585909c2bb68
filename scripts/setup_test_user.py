"""User 1 with a balance of exactly 1000.00 USD, whatever it was before.

Uses DATABASE_URL, or the embedded database of the data directory (`--data-dir`).
"""

import argparse
import asyncio
from decimal import Decimal
from pathlib import Path

from picopay.access.model import DEFAULT_MERCHANT
from picopay.charges import service as charges
from picopay.charges.model import Busy, ChargeCommand
from picopay.cli.context import with_db
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.kernel.money import Money
from picopay.users import service as users
from picopay.users.model import DepositCommand

USER_ID = 1
ATTEMPTS = 100  # the server may be charging this user
WANTED = Money(100_000, "USD")


async def set_up(db: Db) -> Decimal:
    """History is never rewritten: the difference is deposited, or charged."""
    await users.create(db, USER_ID)
    missing = WANTED.minor - await _balance(db)
    if missing > 0:
        money = Money(missing, WANTED.currency)
        await users.deposit(db, DepositCommand(new_id(), DEFAULT_MERCHANT, USER_ID, money, None))
    if missing < 0:
        money = Money(-missing, WANTED.currency)
        command = ChargeCommand.of(new_id(), DEFAULT_MERCHANT, USER_ID, money, None)
        for _ in range(ATTEMPTS):
            if await charges.commit_batch(db, [command]) != [Busy()]:
                break
            await asyncio.sleep(0.01)
    return Money(await _balance(db), WANTED.currency).major


async def _balance(db: Db) -> int:
    _, accounts = await users.show(db, USER_ID)
    return sum(a.balance for a in accounts if a.id.currency == WANTED.currency)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=None)
    balance = with_db(parser.parse_args().data_dir, set_up, create=True)
    print(f"user {USER_ID}: balance {balance} {WANTED.currency}")
    raise SystemExit(0 if balance == WANTED.major else 1)
