"""Whatever providers say, in whatever order and however often: stock and money stay right."""

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.conftest import Stores, empty

from picopay.catalog import check as catalog_check
from picopay.catalog import service as catalog
from picopay.catalog.model import NewProduct
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.kernel.money import Money
from picopay.ledger import check as ledger_check
from picopay.orders import asking, payments, service
from picopay.orders import check as orders_check
from picopay.orders.batcher import Settler
from picopay.orders.errors import OrderNotCancelable
from picopay.orders.model import (
    Ask,
    Line,
    Name,
    OrderCommand,
    Provider,
    Result,
    Shop,
    Status,
    Word,
)
from picopay.orders.rules import Busy, Made
from picopay.outbox.bell import Bell

INVARIANTS = (
    *ledger_check.INVARIANTS,
    *catalog_check.INVARIANTS,
    # Here nobody works: what is owed in the outbox stays there.
    *orders_check.INVARIANTS,
)
SHOP = Shop(Provider.FAKE, "USD")
STOCK = 20
TIMEOUT_SECONDS = 900
STORMS = 60
WORDS_MAX = 40
T = TypeVar("T")
Said = tuple[str, str]

# What may happen to an order; its payments are called a, b and c.
words = st.tuples(
    st.sampled_from(
        ["success", "failed", "success", "failed", "bind", "ask", "cancel", "time_out", "give_up"]
    ),
    st.sampled_from("aab" + "c"),
)


class Shopkeeper:
    """A shop whose orders are told things."""

    def __init__(self, stores: Stores) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.db = Db(stores.database_url)
        self.owner: asyncpg.Connection = self.wait(asyncpg.connect(stores.owner_url))
        self.settler = self.wait(self._settler())

    async def _settler(self) -> Settler:
        return Settler(self.db, Bell())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def open(self) -> list[UUID]:
        """Two products; all else is forgotten."""
        self.wait(empty(self.owner))
        price = Money(250, "USD")
        made = [NewProduct(new_id(), f"Thing {n}", price, STOCK, is_active=True) for n in range(2)]
        self.wait(catalog.create(self.db, made))
        return [product.id for product in made]

    def place(self, *lines: Line) -> UUID:
        command = OrderCommand(new_id(), "ada@example.com", lines, str(new_id()))
        (outcome,) = self.wait(service.place_batch(self.db, SHOP, [command]))
        assert isinstance(outcome, Made), outcome
        return outcome.order.id

    def tell(self, *told: tuple[UUID, Said]) -> None:
        """All at once."""

        async def work() -> None:
            await asyncio.gather(*(self._tell(order_id, *said) for order_id, said in told))

        self.wait(work())

    async def _tell(self, order_id: UUID, what: str, payment: str) -> None:
        name = f"{payment}-of-{order_id}"
        match what:
            case "success" | "failed":
                await self.settler.settle(Word(order_id, name, Result(what)))
            case "bind":
                (busy,) = await asking.bind_together(self.db, [Name(order_id, name)])
                if busy:
                    await asking.bind(self.db, order_id, name)
            case "ask":
                (order,) = await asking.ask_together(self.db, [Ask(order_id)], TIMEOUT_SECONDS)
                if isinstance(order, Busy):
                    await asking.ask(self.db, order_id, TIMEOUT_SECONDS)
            case "time_out":
                await payments.time_out(self.db, order_id)
            case "give_up":
                async with self.db.begin() as tx:
                    await payments.give_up(tx, order_id)
            case _:
                with suppress(OrderNotCancelable):
                    await service.cancel(self.db, order_id)

    def give_money_back(self) -> None:
        """As a worker does; every other one twice."""
        rows = self.wait(self.owner.fetch("SELECT order_id, payment_id FROM order_refunds"))
        for number, (order_id, payment_id) in enumerate(rows):
            for _ in range(1 + number % 2):
                if self.wait(payments.refund_due(self.db, order_id, payment_id)) is not None:
                    self.wait(payments.refunded(self.db, order_id, payment_id))

    def drifts(self) -> list[str]:
        async def work() -> list[str]:
            async with self.db.snapshot() as tx:
                return [
                    drift
                    for invariant in INVARIANTS
                    async for finding in invariant.findings(tx)
                    for drift in finding.drifts
                ]

        return self.wait(work())

    def close(self) -> None:
        self.wait(empty(self.owner))
        self.wait(self.owner.close())
        self.wait(self.settler.close())
        self.wait(self.db.close())
        self._runner.close()


@pytest.fixture(scope="module")
def keeper(stores: Stores) -> Iterator[Shopkeeper]:
    keeper = Shopkeeper(stores)
    yield keeper
    keeper.close()


def assert_right(keeper: Shopkeeper, products: list[UUID]) -> Counter[Status]:
    """Stock and money by plain arithmetic, beside what the checks say."""
    assert keeper.drifts() == []
    rows = keeper.wait(
        keeper.owner.fetch(
            """SELECT o.status, o.items_total,
                      (SELECT count(*) FROM order_payments p
                        WHERE p.order_id = o.id AND p.status = 'succeeded') AS came,
                      (SELECT count(*) FROM order_refunds r
                        WHERE r.order_id = o.id AND r.status = 'succeeded') AS returned,
                      (SELECT sum(quantity) FROM order_items i WHERE i.order_id = o.id) AS pieces
                 FROM orders o"""
        )
    )
    paid = sum(row["items_total"] for row in rows if row["status"] == Status.PAID)
    balance = keeper.wait(
        keeper.owner.fetchval(
            "SELECT coalesce(sum(credits - debits), 0) FROM accounts WHERE owner LIKE 'merchant:%'"
        )
    )
    assert balance == paid, "the shop has what its paid orders come to"
    for row in rows:
        kept = 1 if row["status"] == Status.PAID else 0
        assert row["came"] - row["returned"] == kept
    gone = sum(row["pieces"] for row in rows if row["status"] != Status.CANCELED)
    left = keeper.wait(keeper.owner.fetchval("SELECT sum(stock) FROM products"))
    assert left == len(products) * STOCK - gone
    return Counter(Status(row["status"]) for row in rows)


@given(storm=st.lists(words, max_size=12))
@settings(
    max_examples=STORMS, derandomize=True, database=None, deadline=None, phases=[Phase.generate]
)
@pytest.mark.timeout(900)
def test_an_order_ends_once_whatever_it_is_told(keeper: Shopkeeper, storm: list[Said]) -> None:
    products = keeper.open()
    order_id = keeper.place(Line(products[0], 2), Line(products[1], 1))
    for word in storm:
        keeper.tell((order_id, word))
    keeper.tell((order_id, ("time_out", "a")))
    keeper.give_money_back()
    ended = assert_right(keeper, products)
    assert ended[Status.PAID] + ended[Status.CANCELED] == 1


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_thousands_of_words_about_many_orders_interleave(keeper: Shopkeeper) -> None:
    """Duplicated, reordered, late, at once: each order's words in an order of their own."""
    chance = random.Random(20261121)  # noqa: S311 - no secret
    products = keeper.open()
    said = 0
    for _ in range(12):
        orders = [keeper.place(Line(chance.choice(products), 1)) for _ in range(4)]
        heard = [(order_id, a_word(chance)) for order_id in orders for _ in range(WORDS_MAX)]
        chance.shuffle(heard)
        said += len(heard)
        while heard:
            several = min(len(heard), chance.randrange(1, 9))
            keeper.tell(*(heard.pop() for _ in range(several)))
        keeper.tell(*((order_id, ("time_out", "a")) for order_id in orders))
        keeper.wait(keeper.owner.execute("UPDATE products SET is_active = true"))
        keeper.give_money_back()
        ended = assert_right(keeper, products)
        assert set(ended) <= {Status.PAID, Status.CANCELED}
        products = keeper.open()
    assert said > 1900


def a_word(chance: random.Random) -> Said:
    kinds = ["success"] * 2 + ["failed"] * 2 + ["bind", "ask", "cancel", "time_out", "give_up"]
    return chance.choice(kinds), chance.choice("aabc")
