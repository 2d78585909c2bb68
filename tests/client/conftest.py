"""Both clients behind one face, so that each test meets both, and a real server."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

import pytest
from tests.conftest import Stores
from tests.processes import ADMIN_SECRET, API_KEY, Server

from picopay.client.aio import AsyncClient
from picopay.client.options import DEFAULTS, Options
from picopay.client.sync import Client
from picopay.client.wire import Call

WEBHOOK_SECRET = "whsec_" + b64encode(b"0123456789abcdef0123456789abcdef").decode()
T = TypeVar("T")


class Ask(Protocol):
    """Makes the calls one after the other with one client; the last result."""

    def __call__(self, url: str, *calls: Call[T], options: Options = DEFAULTS) -> T: ...


def _blocking(url: str, *calls: Call[T], options: Options = DEFAULTS) -> T:
    with Client(url, api_key=API_KEY, admin_secret=ADMIN_SECRET, options=options) as client:
        return [client.send(call) for call in calls][-1]


def _asynchronous(url: str, *calls: Call[T], options: Options = DEFAULTS) -> T:
    async def run() -> T:
        async with AsyncClient(
            url, api_key=API_KEY, admin_secret=ADMIN_SECRET, options=options
        ) as client:
            return [await client.send(call) for call in calls][-1]

    return asyncio.run(run())


@pytest.fixture(params=["sync", "aio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return _blocking if request.param == "sync" else _asynchronous


@pytest.fixture(scope="module")
async def picopay(
    stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """A real server that asks for signed webhooks; for one module, as in tests/api."""
    folder = tmp_path_factory.mktemp("server")
    server = Server(
        folder / "data",
        environment={
            "DATABASE_URL": stores.database_url,
            "REDIS_URL": stores.redis_url,
            "PICOPAY_ENV": "development",
            "PICOPAY_WORKER": "false",
            "TRANSACTION_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "TRANSACTION_WEBHOOK_SCHEME": "standard-webhooks",
        },
    )
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)
