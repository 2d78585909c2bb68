"""The schema: migrations go up and down, agree with the models, and keep the rules of growth."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import Index, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy.engine import make_url
from tests.conftest import Stores

from picopay import schema
from picopay.infra.db import Db
from picopay.infra.models import Base
from picopay.infra.sessions import APP_ROLE

TABLES = sorted(Base.metadata.tables.values(), key=lambda table: table.name)
each_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


@pytest.fixture
async def scratch_url(clean: Stores) -> AsyncIterator[str]:
    """An empty database of the test's own."""
    admin = await asyncpg.connect(clean.owner_url)
    base, _, name = clean.owner_url.rpartition("/")
    scratch = f"scratch_{name}"
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {scratch}")
        await admin.execute(f"CREATE DATABASE {scratch}")
        yield f"{base}/{scratch}"
        await admin.execute(f"DROP DATABASE {scratch} WITH (FORCE)")
    finally:
        await admin.close()


async def relations(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        return {row["relname"] for row in await connection.fetch(query)}
    finally:
        await connection.close()


async def test_migrations_go_up_down_and_up_again(scratch_url: str) -> None:
    assert not await schema.is_current(scratch_url)
    await schema.upgrade(scratch_url, scratch_url)
    assert await schema.is_current(scratch_url)
    after = await relations(scratch_url)
    assert {table.name for table in TABLES} | {"entries"} <= after

    await schema.downgrade(scratch_url, "base")
    assert not await schema.is_current(scratch_url)
    assert await relations(scratch_url) == {"alembic_version", "alembic_version_pkc"}

    await schema.upgrade(scratch_url, scratch_url)
    assert await relations(scratch_url) == after
    assert await schema.is_current(scratch_url)


async def test_a_later_schema_is_served_and_left_alone(scratch_url: str) -> None:
    """While others are replaced, and when a release is brought back."""
    await schema.upgrade(scratch_url, scratch_url)
    connection = await asyncpg.connect(scratch_url)
    await connection.execute("UPDATE alembic_version SET version_num = 'of a later release'")
    assert await schema.is_current(scratch_url)
    await schema.upgrade(scratch_url, scratch_url)
    version = await connection.fetchval("SELECT version_num FROM alembic_version")
    await connection.close()
    assert version == "of a later release"


async def test_upgrading_a_current_schema_changes_nothing(scratch_url: str) -> None:
    await schema.upgrade(scratch_url, scratch_url)
    connection = await asyncpg.connect(scratch_url)
    pepper = await connection.fetchval("SELECT pepper FROM installation")
    await schema.upgrade(scratch_url, scratch_url)
    assert await connection.fetchval("SELECT pepper FROM installation") == pepper
    await connection.close()


@pytest.fixture
async def holder(scratch_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else, who holds the table of products for as long as his transaction lasts."""
    await schema.upgrade(scratch_url, scratch_url)
    await schema.downgrade(scratch_url, "0007")
    connection = await asyncpg.connect(scratch_url)
    await connection.execute("BEGIN; LOCK TABLE products IN ACCESS SHARE MODE")
    yield connection
    await connection.close()


async def test_a_table_in_use_is_asked_for_again_and_others_go_on_meanwhile(
    holder: asyncpg.Connection, scratch_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_TIMEOUT_MS", 300)
    monkeypatch.setattr(schema, "LOCK_PAUSE_SECONDS", 0.3)
    told: list[str] = []
    upgrading = asyncio.create_task(schema.upgrade(scratch_url, scratch_url, told.append))
    other = await asyncpg.connect(scratch_url)
    while len(told) < 3:
        await asyncio.wait_for(other.fetch("SELECT FROM products"), 2)
        await asyncio.sleep(0.02)
    assert told[0] == "the schema is at revision 0008"  # which needs no such lock, and stays
    assert told[1].startswith("a table is in use: attempt 1 of")
    assert not await schema.is_current(scratch_url)
    await holder.execute("COMMIT")
    await upgrading
    await other.close()
    assert await schema.is_current(scratch_url)


async def test_a_table_that_stays_in_use_is_told_and_what_was_reached_stays(
    holder: asyncpg.Connection, scratch_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(schema, "LOCK_PAUSE_SECONDS", 0.01)
    with pytest.raises(schema.TablesInUse, match="run `picopay migrate` again"):
        await schema.upgrade(scratch_url, scratch_url)
    assert await holder.fetchval("SELECT version_num FROM alembic_version") == "0008"
    assert not await schema.is_current(scratch_url)


async def test_an_owner_who_may_make_no_roles_takes_those_that_are_there(
    scratch_url: str, clean: Stores
) -> None:
    admin = await asyncpg.connect(clean.owner_url)  # whose cluster has both roles
    scratch = scratch_url.rpartition("/")[2]
    roles = ("modest_owner", "modest_login")
    try:
        for role in roles:
            await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'modest'")
        await admin.execute(f"GRANT {APP_ROLE} TO modest_owner WITH ADMIN OPTION")
        await admin.execute(f"ALTER DATABASE {scratch} OWNER TO modest_owner")
        owner_url, app_url = (
            str(make_url(scratch_url).set(username=role, password="modest")).replace(
                "***", "modest"
            )
            for role in roles
        )
        await schema.upgrade(owner_url, app_url)
        assert await schema.is_current(app_url)
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {scratch} WITH (FORCE)")
        await admin.execute(f"CREATE DATABASE {scratch}")
        await admin.execute(f"DROP ROLE {', '.join(roles)}")
        await admin.close()


async def test_a_migration_under_a_running_server_fails_no_transaction(
    scratch_url: str,
) -> None:
    """What was prepared before it does not fit the changed columns."""
    await schema.upgrade(scratch_url, scratch_url)
    await schema.downgrade(scratch_url, "0008")
    db = Db(scratch_url, pool_size=1, max_overflow=0)

    async def work() -> int:
        async with db.begin() as tx:
            return len(await tx.driver.fetch("SELECT stock FROM products WHERE stock > $1", 1))

    assert await db.retrying(work) == 0
    await schema.upgrade(scratch_url, scratch_url)
    assert await db.retrying(work) == 0
    await db.close()


async def test_two_upgrades_at_once_are_one(scratch_url: str) -> None:
    told: list[str] = []
    await asyncio.gather(*(schema.upgrade(scratch_url, scratch_url, told.append) for _ in range(3)))
    assert await schema.is_current(scratch_url)
    reached = [line for line in told if line.startswith("the schema is at")]
    assert len(reached) == len(set(reached)) > 10
    assert told.count("another migration is at work: waiting for its end") == 2


WAITING_FOR_WRITERS = """
SELECT count(*) FROM pg_stat_activity
 WHERE query LIKE '%CONCURRENTLY%' AND wait_event = 'virtualxid' AND datname = current_database()
"""


async def test_an_index_is_built_while_others_write_and_a_half_built_one_is_built_again(
    scratch_url: str,
) -> None:
    await schema.upgrade(scratch_url, scratch_url)
    await schema.downgrade(scratch_url, "0010")
    writer, other = [await asyncpg.connect(scratch_url) for _ in range(2)]
    await other.execute(f"ALTER DATABASE {scratch_url.rpartition('/')[2]} SET lock_timeout = 300")
    insert = "INSERT INTO postings VALUES ('a', $1, 'b', 'USD', 1, 'x', 1, $2, 1, 1)"
    await other.execute("CREATE INDEX postings_id_debit_owner_key ON postings (id)")
    await writer.execute("BEGIN")
    await writer.execute(insert, uuid4(), 1)
    upgrading = asyncio.create_task(schema.upgrade(scratch_url, scratch_url))
    async with asyncio.timeout(10):
        while not await other.fetchval(WAITING_FOR_WRITERS):  # noqa: ASYNC110 - another's
            await asyncio.sleep(0.02)
    await asyncio.wait_for(other.execute(insert, uuid4(), 2), 2)
    await asyncio.sleep(0.5)
    assert not upgrading.done()
    await writer.execute("COMMIT")
    await upgrading
    key = await other.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'postings_pkey'"
    )
    assert key == "PRIMARY KEY (id, debit_owner)"
    assert await other.fetchval("SELECT count(*) FROM postings") == 2
    await writer.close()
    await other.close()


async def test_models_and_migrations_agree(clean: Stores) -> None:
    assert await schema.differences(clean.owner_url) == []


async def test_models_and_migrations_agree_on_every_check(owner: asyncpg.Connection) -> None:
    query = "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0"
    migrated = {row["conname"] for row in await owner.fetch(query)}
    declared = {
        str(check.name)
        for table in TABLES
        for check in table.constraints
        if type(check).__name__ == "CheckConstraint"
    }
    assert declared == migrated


async def test_an_extra_column_would_be_noticed(clean: Stores, owner: asyncpg.Connection) -> None:
    await owner.execute("ALTER TABLE users ADD COLUMN nickname text")
    try:
        assert len(await schema.differences(clean.owner_url)) == 1
    finally:
        await owner.execute("ALTER TABLE users DROP COLUMN nickname")


async def test_a_role_that_could_change_postings_would_be_noticed(
    clean: Stores, owner: asyncpg.Connection
) -> None:
    assert not await schema.app_can_change_postings(clean.owner_url)
    for privilege in ("UPDATE (amount)", "UPDATE", "DELETE", "TRUNCATE"):
        await owner.execute(f"GRANT {privilege} ON postings TO {APP_ROLE}")
        try:
            assert await schema.app_can_change_postings(clean.owner_url)
        finally:
            await owner.execute(f"REVOKE {privilege} ON postings FROM {APP_ROLE}")
    assert not await schema.app_can_change_postings(clean.owner_url)


async def test_a_restored_or_other_database_has_another_identity(db: Db) -> None:
    assert await db.identity(b"one") == await db.identity(b"one")
    assert await db.identity(b"one") != await db.identity(b"other")


def unique_keys(table: Table) -> list[set[str]]:
    constraints = [
        {column.name for column in constraint.columns}
        for constraint in table.constraints
        if isinstance(constraint, (PrimaryKeyConstraint, UniqueConstraint))
    ]
    return constraints + [_columns(index) for index in table.indexes if index.unique]


def _columns(index: Index) -> set[str]:
    return {column.name for column in index.columns}


@each_table
def test_every_table_is_distributed_by_a_column_or_is_reference_data(table: Table) -> None:
    assert ("distributed_by" in table.info) != ("reference" in table.info)
    if "distributed_by" in table.info:
        assert table.info["distributed_by"] in table.columns
    else:
        assert table.info["reference"] is True


@each_table
def test_every_unique_key_holds_the_distribution_column(table: Table) -> None:
    assert unique_keys(table)
    if (column := table.info.get("distributed_by")) is not None:
        assert all(column in key for key in unique_keys(table))


@each_table
def test_foreign_keys_stay_inside_an_aggregate_or_point_to_reference_data(table: Table) -> None:
    for foreign in table.foreign_keys:
        other = foreign.column.table
        same = table.info.get("distributed_by"), other.info.get("distributed_by")
        inside = same == (foreign.parent.name, foreign.column.name)
        assert other.info.get("reference") or inside


async def test_the_database_has_no_triggers_and_no_sequences(owner: asyncpg.Connection) -> None:
    triggers = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
    sequences = "SELECT relname FROM pg_class WHERE relkind = 'S'"
    assert await owner.fetch(triggers) == []
    assert await owner.fetch(sequences) == []
