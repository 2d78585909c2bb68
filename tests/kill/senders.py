"""Senders of transaction webhooks who never give up, and what must be true of all they sent."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import aiohttp
import asyncpg
from tests.integration.outbox.workers import drained
from tests.races.load import Caller
from tests.races.truth import assert_ledger_clean, connected

from picopay.infra.db import Db

ACCOUNTS = 4
SENDERS = 4
PAUSE_SECONDS = 0.05
STRUCK_SECONDS_MAX = 60
DRAINED_SECONDS_MAX = 60


class Transaction(NamedTuple):
    id: str
    source: str
    destination: str
    amount: int

    def body(self) -> dict[str, object]:
        return {
            "transaction_id": self.id,
            "source_account": self.source,
            "destination_account": self.destination,
            "amount": self.amount,
            "currency": "USD",
        }


@dataclass
class Sending:
    """Transactions of accounts that no other test knows; `accepted` were answered 202."""

    name: str = field(default_factory=lambda: uuid4().hex[:12])
    sent: dict[str, Transaction] = field(default_factory=dict[str, Transaction])
    accepted: dict[str, Transaction] = field(default_factory=dict[str, Transaction])
    asked: int = 0
    answered_well: int = 0
    _made: int = 0

    def next(self) -> Transaction:
        """From one of a few accounts to the next, so that balances come from many."""
        number = self._number()
        source, destination = number % ACCOUNTS, (number + 1) % ACCOUNTS
        return self._transaction(number, f"acc{source}", f"acc{destination}")

    def doomed(self) -> Transaction:
        """From an account whose totals a test has filled."""
        return self._transaction(self._number(), "full", "acc0")

    @property
    def full_account(self) -> str:
        return f"external:{self.name}-full"

    def _number(self) -> int:
        self._made += 1
        return self._made

    def _transaction(self, number: int, source: str, destination: str) -> Transaction:
        name = self.name
        return Transaction(f"{name}-{number}", f"{name}-{source}", f"{name}-{destination}", number)

    async def send(self, by: Caller, transaction: Transaction) -> bool:
        """Whether it was accepted; False when the server is gone, or told to come again."""
        self.sent[transaction.id] = transaction
        self.asked += 1
        try:
            answer = await by.post("/v1/webhooks/transactions", transaction.body())
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
        if answer.status == 503:
            return False
        assert answer.status == 202, answer
        self.accepted[transaction.id] = transaction
        self.answered_well += 1
        return True

    async def insist(self, by: Caller, transaction: Transaction, *, seconds: float = 60) -> None:
        give_up_at = asyncio.get_running_loop().time() + seconds
        while not await self.send(by, transaction):
            assert asyncio.get_running_loop().time() < give_up_at, f"not accepted: {transaction}"
            await asyncio.sleep(PAUSE_SECONDS)

    async def burst(self, by: Caller, transactions: Iterable[Transaction]) -> None:
        await asyncio.gather(*(self.insist(by, transaction) for transaction in transactions))

    async def keep_sending(
        self, by: Caller, until: Callable[[], bool], make: Callable[[], Transaction] | None = None
    ) -> None:
        """Bursts of five, one of which `make` makes, until it is so."""
        give_up_at = asyncio.get_running_loop().time() + STRUCK_SECONDS_MAX
        while not until():
            assert asyncio.get_running_loop().time() < give_up_at, "waited in vain"
            await self.burst(by, [*(self.next() for _ in range(4)), (make or self.next)()])
            await asyncio.sleep(PAUSE_SECONDS)

    def balances(self, dead: Iterable[str] = ()) -> Counter[str]:
        """What the accounts must hold once all but the dead are processed."""
        held = Counter[str]()
        for transaction in self.accepted.values():
            if transaction.id not in set(dead):
                held[transaction.source] -= transaction.amount
                held[transaction.destination] += transaction.amount
        return held


@asynccontextmanager
async def webhooks(sending: Sending, by: Caller, *, senders: int = SENDERS) -> AsyncGenerator[None]:
    """Senders repeat each webhook until it is accepted, and go on until they are told to stop."""
    end = asyncio.Event()

    async def send() -> None:
        while not end.is_set():
            await sending.insist(by, sending.next())
            await asyncio.sleep(PAUSE_SECONDS)

    tasks = [asyncio.create_task(send()) for _ in range(senders)]
    try:
        yield
    finally:
        end.set()
        await asyncio.gather(*tasks)


async def assert_all_is_processed(
    url: str, by: Caller, sending: Sending, dead: Iterable[str] = ()
) -> None:
    """Every accepted transaction once, in its postings, its balances and its status; none owed."""
    dead = set(dead)
    async with connected(url) as owner:
        await drained(owner, DRAINED_SECONDS_MAX)  # leases are kept there too
        await _assert_posted_once(owner, sending, dead)
        await _assert_acknowledged_or_dead(owner, sending, dead)
    assert await _statuses(by, sending) == {
        id_: "FAILED" if id_ in dead else "PROCESSED" for id_ in sending.accepted
    }
    for account, held in sending.balances(dead).items():
        assert await _balance(by, account) == held, account
    db = Db(url)
    await assert_ledger_clean(db)
    await db.close()


async def _assert_posted_once(owner: asyncpg.Connection, sending: Sending, dead: set[str]) -> None:
    """Asked by account, so that a posting nobody accepted is seen too."""
    rows = await owner.fetch(
        """SELECT t.transaction_id, p.debit_owner, p.credit_owner, p.amount
             FROM postings p LEFT JOIN transfers t USING (id)
            WHERE starts_with(p.debit_owner, $1)""",
        f"external:{sending.name}-",
    )
    wanted = {
        (t.id, f"external:{t.source}", f"external:{t.destination}", 100 * t.amount)
        for t in sending.accepted.values()
        if t.id not in dead
    }
    posted = Counter(tuple(row) for row in rows)
    more, missing = posted - Counter(wanted), Counter(wanted) - posted
    letters = await owner.fetch("SELECT aggregate, reason, attempts, error FROM dead_letters")
    assert (more, missing) == (Counter(), Counter()), (more, missing, letters)


async def _assert_acknowledged_or_dead(
    owner: asyncpg.Connection, sending: Sending, dead: set[str]
) -> None:
    """Every event is proven, or an open dead letter, exactly one and never both."""
    rows = await owner.fetch(
        """SELECT substr(e.aggregate, length('transfer:') + 1),
                  (SELECT count(*) FROM outbox_consumed c
                    WHERE c.aggregate = e.aggregate AND c.seq = e.seq),
                  (SELECT count(*) FROM dead_letters d WHERE d.aggregate = e.aggregate
                      AND d.seq = e.seq AND d.resolved_at IS NULL)
             FROM outbox_events e WHERE starts_with(e.aggregate, $1)""",
        f"transfer:{sending.name}-",
    )
    wanted = [(id_, 0, 1) if id_ in dead else (id_, 1, 0) for id_ in sending.accepted]
    assert sorted(tuple(row) for row in rows) == sorted(wanted)


async def _statuses(by: Caller, sending: Sending) -> dict[str, str]:
    """As the list shows them, page by page, account by account."""
    found: dict[str, str] = {}
    for source in {transaction.source for transaction in sending.accepted.values()}:
        cursor = ""
        while True:
            page = await by.get(f"/v1/transactions?account={source}&limit=100{cursor}")
            found |= {item["transaction_id"]: item["status"] for item in page["data"]}
            if not page["has_more"]:
                break
            cursor = f"&cursor={page['next_cursor']}"
    return found


async def _balance(by: Caller, account: str) -> Any:  # noqa: ANN401 - a number of JSON's
    """0 for an account that was never opened."""
    balances = (await by.get(f"/v1/accounts/external:{account}"))["balances"]
    return sum(balance["balance"] for balance in balances)
