"""A real server process for the tests that want one; the others call the application itself."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.conftest import Stores
from tests.processes import Server


@pytest.fixture(scope="session")
async def server(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """`picopay serve` on this worker's stores, with the log that production writes."""
    folder = tmp_path_factory.mktemp("server")
    server = Server(
        folder / "data",
        environment={
            "DATABASE_URL": stores.database_url,
            "REDIS_URL": stores.redis_url,
            "PICOPAY_ENV": "development",
            "LOG_LEVEL": "INFO",
        },
    )
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)
