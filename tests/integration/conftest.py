"""What the integration tests share: a database connection that can be lost at will."""

from collections.abc import AsyncIterator

import pytest
from tests.conftest import Stores
from tests.integration.proxies import PostgresProxy

from picopay.infra.db import Db


@pytest.fixture
async def proxy(clean: Stores) -> AsyncIterator[PostgresProxy]:
    async with PostgresProxy(clean.database_url).running() as proxy:
        yield proxy


@pytest.fixture
async def lossy_db(proxy: PostgresProxy) -> AsyncIterator[Db]:
    """The database through a network that loses COMMITs."""
    db = Db(proxy.url)
    yield db
    await db.close()
