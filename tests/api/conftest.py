"""A real server process for the tests that want one; the others call the application itself."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from tests.conftest import Stores, settings_of
from tests.processes import Server

from picopay.app import create_app


@pytest.fixture(scope="module")
async def standing(stores: Stores) -> AsyncIterator[FastAPI]:
    """What a module's tests share: to start an application takes as long as ten requests."""
    app = create_app(settings_of(stores))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def app(standing: FastAPI, clean: Stores) -> FastAPI:
    return standing


@pytest.fixture(scope="module")
async def server(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """`picopay serve` on this worker's stores, with the log that production writes.

    Not for longer: other modules' tests count the connections of this database.
    """
    folder = tmp_path_factory.mktemp("server")
    server = Server(
        folder / "data",
        environment={
            "DATABASE_URL": stores.database_url,
            "REDIS_URL": stores.redis_url,
            "PICOPAY_ENV": "development",
            "LOG_LEVEL": "INFO",
            "FAKE_PAYMENT_ENABLED": "true",
            "PICOPAY_WORKER": "false",
        },
    )
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)
