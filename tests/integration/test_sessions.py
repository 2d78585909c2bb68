"""What PostgreSQL is told about our sessions, so that one that hangs gives its locks back."""

import pytest
from tests.conftest import Stores

from picopay.infra import sessions
from picopay.infra.db import Db


@pytest.mark.parametrize("session", [sessions.REQUESTS, sessions.RESERVED, sessions.BACKGROUND])
async def test_a_session_may_not_be_silent_for_long_wherever_in_a_transaction(
    clean: Stores, session: sessions.Kind
) -> None:
    db = Db(clean.database_url, session=session)
    async with db.begin() as tx:
        limits = {
            name: await tx.driver.fetchval(f"SHOW {name}")
            for name in (
                "transaction_timeout",
                "idle_in_transaction_session_timeout",
                "statement_timeout",
            )
        }
    await db.close()
    statement = session.settings["statement_timeout"]
    assert limits == {
        "transaction_timeout": "30s",
        "idle_in_transaction_session_timeout": "10s",
        "statement_timeout": statement,
    }


async def test_a_snapshot_takes_as_long_as_it_needs(db: Db) -> None:
    async with db.snapshot() as tx:
        for name in ("transaction_timeout", "idle_in_transaction_session_timeout"):
            assert await tx.driver.fetchval(f"SHOW {name}") == "0"
        assert await tx.driver.fetchval("SHOW statement_timeout") == "0"
    async with db.begin() as tx:
        assert await tx.driver.fetchval("SHOW transaction_timeout") == "30s"
