"""Use cases of refunds: make one, list a charge's.

Money goes from the merchant back to the payer, in the transaction that writes the refund, counts
it at its charge and claims its key.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, TypeVar

import asyncpg
from sqlalchemy.exc import DBAPIError

from picopay.charges import refunds_store, rules
from picopay.charges.model import Charge, Refund, RefundCommand
from picopay.idempotency import service as idempotency
from picopay.infra.db import (
    CommitInDoubt,
    ConnectionLost,
    DatabaseUnavailable,
    Db,
    OutcomeUnknown,
)
from picopay.infra.logs import log
from picopay.infra.sqlstates import LOCK_NOT_AVAILABLE, sqlstate
from picopay.kernel.errors import Overloaded
from picopay.ledger import service as ledger
from picopay.ledger.rules import Book

T = TypeVar("T")

# Who waits for the merchant holds the payer, and charges of his wait meanwhile: so never for
# long at a time, and in between nothing is held.
LOCK_TIMEOUT_MS: Final = 250
PAUSE_SECONDS: Final = 0.1
# Longer than a silent session may keep its locks: so a COMMIT that got lost is settled, too.
LOCKED_SECONDS: Final = 12.0
LOCKED: Final = "what the refund needs is locked by somebody else"


async def refund(
    db: Db,
    command: RefundCommand,
    turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> tuple[Refund, bool]:
    """The refund, and whether its key had made it before. Each attempt takes a `turn`.

    When the answer of COMMIT is lost, the same transaction is run again: its key leads to what
    the first one made, and waits for it if it has not ended. Raises `RefundExceedsCharge`,
    `MerchantBalanceInsufficient`, `AccountLimit`, `KeyReused`; `Overloaded` when something stays
    locked elsewhere; `OutcomeUnknown` when that, or the loss of the database, leaves a COMMIT in
    doubt.
    """
    attempt = _Attempt(db, command)
    try:
        return await _patiently(db, attempt.run, turn)
    except (DatabaseUnavailable, Overloaded):
        if not attempt.in_doubt:
            raise
        log.error("refund.outcome_unknown", refund_id=str(command.id))
        raise OutcomeUnknown("refund", command.id) from None


@dataclass(slots=True)
class _Attempt:
    """One refund, run as often as it takes, and what was learnt meanwhile."""

    db: Db
    command: RefundCommand
    in_doubt: bool = False  # a COMMIT got no answer
    obstructed: bool = False  # something was locked elsewhere

    async def run(self) -> tuple[Refund, bool]:
        """Raises `Overloaded` while something that it needs is locked elsewhere."""
        try:
            if self.obstructed and not await self._merchant_is_free():
                raise Overloaded(LOCKED)
            return await _refund(self.db, self.command)
        except CommitInDoubt as error:
            self.in_doubt = True
            raise ConnectionLost(str(error)) from error
        except (DBAPIError, asyncpg.PostgresError) as error:
            if sqlstate(error) != LOCK_NOT_AVAILABLE:
                raise
            self.obstructed = True
            raise Overloaded(LOCKED) from None

    async def _merchant_is_free(self) -> bool:
        """Waited for without holding the payer: his charges at others go on."""
        merchant = self.command.merchant
        free = await ledger.await_free(self.db, merchant, (), lock_timeout_ms=LOCK_TIMEOUT_MS)
        return bool(free)


async def _patiently(
    db: Db, work: Callable[[], Awaitable[T]], turn: Callable[[], AbstractAsyncContextManager[None]]
) -> T:
    """Again and again while it is `Overloaded`, holding nothing in between."""
    loop = asyncio.get_running_loop()
    give_up_at: float | None = None
    while True:
        async with turn():
            try:
                return await db.retrying(work)
            except Overloaded:
                give_up_at = give_up_at or loop.time() + LOCKED_SECONDS
                if loop.time() >= give_up_at:
                    raise
        await asyncio.sleep(PAUSE_SECONDS)


async def _refund(db: Db, command: RefundCommand) -> tuple[Refund, bool]:
    async with db.begin(lock_timeout_ms=LOCK_TIMEOUT_MS) as tx:
        known = await idempotency.claim(tx, {command.key_id: command.id})
        if known:
            made_id = known[command.key_id]
            made = await refunds_store.select_refund(tx, command.charge.merchant_id, made_id)
            # Ours, when this is another look after a lost COMMIT.
            return rules.replay_refund(command, made), made_id != command.id
        refunded_minor, now = await refunds_store.lock_charge(tx, command.charge)
        made = rules.decide_refund(command, refunded_minor, now)
        # Users before shared accounts: the one lock order.
        payer = await ledger.lock_or_open(tx, [command.payer])
        book = Book([*payer, *await ledger.lock_or_open(tx, [command.merchant])])
        rules.post_refund(book, command, made)
        await ledger.write(tx, book, *refunds_store.insertion(command, made))
    return made, False


async def page(db: Db, charge: Charge, below_minor: int | None, limit: int) -> list[Refund]:
    """The charge's refunds, newest first; one more than `limit` tells that there are more.

    `below_minor` is the charge's total after the last refund of the page before.
    """
    return await db.query(lambda tx: refunds_store.select_page(tx, charge, below_minor, limit + 1))
