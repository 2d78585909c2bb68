"""Many customers at once: nothing is sold twice, and a locked product delays only its own."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import permutations
from time import monotonic

import asyncpg
import httpx2
import pytest
from tests.api.shop import ADMIN, a_product, order, stock_of, wanted
from tests.api.steps import problem
from tests.conftest import serving

from picopay.infra.settings import Settings

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(
        settings,
        admin_secret=ADMIN["X-Admin-Secret"],
        payment_provider="manual",
        rate_limit_orders_per_address_per_minute=100_000,
    ) as client:
        yield client


async def test_two_hundred_customers_for_the_last_ten_pieces(client: httpx2.AsyncClient) -> None:
    mouse = await a_product(client, stock=10)
    answers = await asyncio.gather(*(order(client, wanted((mouse, 1))) for _ in range(200)))
    assert Counter(a.status_code for a in answers) == {201: 10, 409: 190}
    for refused in (a for a in answers if a.status_code == 409):
        assert problem(refused, 409, "insufficient-stock")["available"] == 0
    assert await stock_of(client, mouse) == 0


async def test_several_products_in_every_order_of_their_ids(client: httpx2.AsyncClient) -> None:
    products = [await a_product(client, stock=60) for _ in range(4)]
    wishes = [
        wanted(*((product, 1) for product in chosen))
        for chosen in permutations(products, 3)
        for _ in range(5)
    ]
    answers = await asyncio.gather(*(order(client, wish) for wish in wishes))
    placed = [a for a in answers if a.status_code == 201]
    left = [await stock_of(client, product) for product in products]
    assert {a.status_code for a in answers} <= {201, 409}
    assert sum(left) == 4 * 60 - 3 * len(placed)
    assert min(left) == 0 or len(placed) == len(wishes)


async def test_two_servers_share_the_last_pieces(
    settings: Settings, client: httpx2.AsyncClient
) -> None:
    mouse = await a_product(client, stock=30)
    other_server = serving(
        settings,
        payment_provider="manual",
        rate_limit_orders_per_address_per_minute=100_000,
    )
    async with other_server as other:
        wishes = [(by, wanted((mouse, 1))) for _ in range(50) for by in (client, other)]
        answers = await asyncio.gather(*(order(by, wish) for by, wish in wishes))
    assert Counter(a.status_code for a in answers) == {201: 30, 409: 70}
    assert await stock_of(client, mouse) == 0


async def test_one_key_on_two_servers_is_one_order(
    settings: Settings, client: httpx2.AsyncClient
) -> None:
    mouse, wish = await a_product(client), None
    async with serving(settings, payment_provider="manual") as other:
        for number in range(20):
            wish = wanted((mouse, 1), email=f"{number}@example.com")
            answers = await asyncio.gather(
                *(order(by, wish, f"key-{number}") for by in (client, other, client, other))
            )
            assert len({a.content for a in answers if a.status_code == 201}) <= 1
            assert {a.status_code for a in answers} <= {201, 409}
            if number >= 10:
                assert {a.status_code for a in answers} == {409}
    assert await stock_of(client, mouse) == 0


async def test_a_product_that_is_locked_elsewhere_delays_nobody_who_wants_another(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    locked, free = await a_product(client), await a_product(client, stock=100)
    async with owner.transaction():
        await owner.execute("SELECT 1 FROM products WHERE id = $1 FOR UPDATE", locked)
        waiting = asyncio.create_task(order(client, wanted((locked, 1), (free, 1))))
        began = monotonic()
        answers = await asyncio.gather(*(order(client, wanted((free, 1))) for _ in range(50)))
        assert {a.status_code for a in answers} == {201}
        assert monotonic() - began < 3
        assert not waiting.done()
    assert (await waiting).status_code == 201
    assert (await stock_of(client, locked), await stock_of(client, free)) == (9, 49)
