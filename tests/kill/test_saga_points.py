"""SIGKILL of the server and of workers at each step of a saga: every order still ends, once."""

import asyncio
import os
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic

import aiohttp
import pytest
from tests.embedded.world import wait_until
from tests.kill.crew import Trap, Worker
from tests.processes import Server, Site, assert_ledger_clean
from tests.races.load import Caller, caller
from tests.races.truth import connected

pytestmark = [pytest.mark.kill, pytest.mark.timeout(240)]

ADMIN = "an-admin-secret-for-tests"
STOCK = 10_000
TIMEOUT_SECONDS = 2
SHOP = {
    "PICOPAY_WORKER": "false",
    "ADMIN_SECRET": ADMIN,
    "PAYMENT_WEBHOOK_SECRET": "a-callback-secret-for-tests",
    "FAKE_PAYMENT_ENABLED": "true",
    "FAKE_PAYMENT_DELAY_SECONDS": "0.2",
    "FAKE_PAYMENT_SUCCESS_RATE": "0.7",
    "ORDER_PAYMENT_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
    "RATE_LIMIT_ORDERS_PER_ADDRESS_PER_MINUTE": "0",
}
DAILY = {"before_paying", "before_settling", "before_binding"}
STRUCK_SECONDS_MAX = 60
ENDED_SECONDS_MAX = 60
IN_SERVER = [
    f"{when}_{what}"
    for what in ("placing", "paying", "settling", "canceling")
    for when in ("before", "after")
]
IN_WORKER = [
    f"{when}_{what}"
    for what in ("asking", "binding", "timing_out", "refunding")
    for when in ("before", "after")
]


def by_day(points: list[str]) -> list[object]:
    """All of them by night, and these every day."""
    return [
        point if point in DAILY else pytest.param(point, marks=pytest.mark.nightly)
        for point in points
    ]


class Shop:
    """A server with the fake provider, and two workers beside it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.server = Server(site.data_dir, environment=SHOP)
        site.adopt(self.server)
        self.workers: list[Worker] = []

    @property
    def environment(self) -> dict[str, str]:
        return SHOP | {"PICOPAY_URL": self.server.url}

    def start(self, in_server: Mapping[str, str], in_worker: Mapping[str, str]) -> None:
        self.server.start(dict(in_server))
        self.workers = [
            Worker(self.site.data_dir, self.environment | dict(in_worker)),
            Worker(self.site.data_dir, self.environment),
        ]
        for worker in self.workers:
            worker.wait_until_started()

    def replace_the_dead(self) -> None:
        """Somebody is dying: that it was struck is told just before."""
        processes = [self.server, *self.workers]
        wait_until(lambda: not all(process.is_running() for process in processes))
        if not self.server.is_running():
            self.server.start()
        for worker in self.workers:
            if not worker.is_running():
                self.workers = [w for w in self.workers if w is not worker]
                self.workers.append(Worker(self.site.data_dir, self.environment))

    def close(self) -> None:
        for worker in self.workers:
            worker.stop(signal.SIGKILL)


@pytest.fixture
def shop(site: Site) -> Iterator[Shop]:
    shop = Shop(site)
    yield shop
    shop.close()


@dataclass
class Customers:
    """They insist on each order, by its key, and cancel some."""

    product: str
    by: Caller
    placed: set[str] = field(default_factory=set[str])

    async def buy(self, until: Callable[[], bool]) -> None:
        give_up_at = monotonic() + STRUCK_SECONDS_MAX
        while not until():
            assert monotonic() < give_up_at, "the fault has not struck"
            await asyncio.gather(*(self.one(until) for _ in range(4)))

    async def one(self, until: Callable[[], bool]) -> None:
        key = str(uuid.uuid4())
        line = {"product_id": self.product, "quantity": 1}
        body = {"user_email": f"{key}@example.com", "items": [line]}
        while (order_id := await self._post("/orders", body, key)) is None:
            if until():
                return  # the server is gone: it is for the next one
            await asyncio.sleep(0.05)
        self.placed.add(order_id)
        if int(order_id[-1], 16) < 4:
            await self._post(f"/orders/{order_id}/cancel", {}, key)

    async def _post(self, path: str, body: Mapping[str, object], key: str) -> str | None:
        try:
            answer = await self.by.post(path, body, {"Idempotency-Key": key})
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        assert answer.status in {200, 201, 409, 503}, answer
        return answer.json["id"] if answer.status < 300 else None


async def a_product(by: Caller) -> str:
    body = {"name": "Thing", "price": "2.50", "stock": STOCK, "is_active": True}
    answer = await by.post("/admin/products", body, {"X-Admin-Secret": ADMIN})
    assert answer.status == 201, answer
    return answer.json["id"]


@pytest.mark.parametrize("point", by_day(IN_SERVER))
async def test_a_server_killed_at_any_step_leaves_every_order_ended(shop: Shop, point: str) -> None:
    trap = Trap(shop.site.data_dir.parent, point)
    await asyncio.to_thread(shop.start, trap.environment, {})
    await assert_all_end(shop, trap, point)


@pytest.mark.parametrize("point", by_day(IN_WORKER))
async def test_a_worker_killed_at_any_step_leaves_every_order_ended(shop: Shop, point: str) -> None:
    trap = Trap(shop.site.data_dir.parent, point)
    await asyncio.to_thread(shop.start, {}, trap.environment)
    await assert_all_end(shop, trap, point)


async def test_every_order_ends_while_valkey_hangs_and_when_it_is_killed(shop: Shop) -> None:
    await asyncio.to_thread(shop.start, {}, {})
    world = shop.site.world
    async with caller(shop.server.url) as by:
        customers = Customers(await a_product(by), by)
        stopped = world.valkey()
        os.kill(stopped, signal.SIGSTOP)
        await customers.buy(after(1))
        hanging = len(customers.placed)
        os.kill(stopped, signal.SIGKILL)
        await customers.buy(after(1))
        await asyncio.to_thread(wait_until, lambda: world.valkey() != stopped)
        await customers.buy(after(1))
        assert 0 < hanging < len(customers.placed)
        await assert_ended(shop, customers)
    assert_ledger_clean(shop.site.data_dir)


def after(seconds: float) -> Callable[[], bool]:
    end = monotonic() + seconds
    return lambda: monotonic() > end


async def assert_all_end(shop: Shop, trap: Trap, point: str) -> None:
    async with caller(shop.server.url) as by:
        customers = Customers(await a_product(by), by)
        await customers.buy(trap.has_struck)
        await asyncio.to_thread(shop.replace_the_dead)
        await assert_ended(shop, customers)
    assert_ledger_clean(shop.site.data_dir)
    assert point


async def assert_ended(shop: Shop, customers: Customers) -> None:
    """Paid or canceled, with stock and money to match; nothing is owed, and no refund is open."""
    async with connected(shop.site.database_url) as owner:
        give_up_at = monotonic() + ENDED_SECONDS_MAX
        while await owner.fetchval(
            """SELECT (SELECT count(*) FROM orders WHERE status NOT IN ('paid', 'canceled'))
                    + (SELECT count(*) FROM order_refunds WHERE status = 'requested')
                    -- What may still be told of: late words, and money that came in vain.
                    + (SELECT count(*) FROM outbox_queue
                        WHERE consumer IN ('payments', 'fake_payments', 'refunds'))"""
        ):
            assert monotonic() < give_up_at, "not all orders have ended"
            await asyncio.sleep(0.1)
        rows = await owner.fetch("SELECT id::text, status FROM orders")
        assert customers.placed <= {row[0] for row in rows}
        ended = Counter(row[1] for row in rows)
        stock = await owner.fetchval("SELECT stock FROM products")
        assert stock == STOCK - ended["paid"]
        assert await owner.fetch("SELECT consumer, reason, error FROM dead_letters") == []
        earned = await owner.fetchval(
            "SELECT coalesce(sum(credits - debits), 0) FROM accounts WHERE owner LIKE 'merchant:%'"
        )
        assert earned == 250 * ended["paid"]
