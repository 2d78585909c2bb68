"""What docs/design-guide.md says about PostgreSQL, shown in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests.conftest import Stores


@pytest.fixture
async def two(owner: asyncpg.Connection, stores: Stores) -> AsyncIterator[list[asyncpg.Connection]]:
    """Two sessions, and a table of balances that is nobody's."""
    await owner.execute("CREATE TABLE guide (name text PRIMARY KEY, balance bigint NOT NULL)")
    await owner.execute("INSERT INTO guide VALUES ('alice', 100), ('bob', 100)")
    sessions = [await asyncpg.connect(stores.owner_url) for _ in range(2)]
    yield sessions
    for session in sessions:
        await session.close()
    await owner.execute("DROP TABLE guide")


async def balance(session: asyncpg.Connection, name: str = "alice") -> int:
    return await session.fetchval("SELECT balance FROM guide WHERE name = $1", name)


async def until_it_waits(late: asyncpg.Connection, other: asyncpg.Connection) -> None:
    """PostgreSQL itself says who waits for whom."""
    pids = late.get_server_pid(), other.get_server_pid()
    for _ in range(1000):
        if await other.fetchval("SELECT $2 = ANY(pg_blocking_pids($1))", *pids):
            return
        await asyncio.sleep(0.01)
    pytest.fail("does not wait")


async def test_for_update_of_a_missing_row_locks_nothing(two: list[asyncpg.Connection]) -> None:
    """Check, then insert: both see nothing, and both go on."""
    first, second = two
    check = "SELECT 1 FROM guide WHERE name = 'carol' FOR UPDATE"
    await first.execute("BEGIN")
    await second.execute("BEGIN")
    assert await first.fetchval(check) is None
    assert await asyncio.wait_for(second.fetchval(check), 5) is None  # it did not wait
    await first.execute("INSERT INTO guide VALUES ('carol', 1)")
    await first.execute("COMMIT")
    with pytest.raises(asyncpg.UniqueViolationError):  # what saves us is the constraint
        await second.execute("INSERT INTO guide VALUES ('carol', 1)")


async def test_read_committed_loses_updates_that_are_computed_outside(
    two: list[asyncpg.Connection],
) -> None:
    first, second = two
    for session in two:
        await session.execute("BEGIN")
    read = [await balance(session) for session in two]
    await first.execute("UPDATE guide SET balance = $1 WHERE name = 'alice'", read[0] - 30)
    await first.execute("COMMIT")
    await second.execute("UPDATE guide SET balance = $1 WHERE name = 'alice'", read[1] - 50)
    await second.execute("COMMIT")
    assert await balance(first) == 50  # 30 were taken from nobody


async def test_read_committed_keeps_updates_that_are_computed_inside(
    two: list[asyncpg.Connection],
) -> None:
    """The waiting UPDATE looks at the row again, and at its own condition too."""
    first, second = two
    take = "UPDATE guide SET balance = balance - 70 WHERE name = 'alice' AND balance >= 70"
    await first.execute("BEGIN")
    assert await first.execute(take) == "UPDATE 1"
    late = asyncio.create_task(second.execute(take))
    await until_it_waits(second, first)
    await first.execute("COMMIT")
    assert await late == "UPDATE 0"  # no error: whoever does not count rows believes it was done
    assert await balance(first) == 30


async def test_a_version_guards_what_was_computed_outside(two: list[asyncpg.Connection]) -> None:
    first, second = two
    read = await balance(first)
    guarded = "UPDATE guide SET balance = $1 WHERE name = 'alice' AND balance = $2"
    assert await first.execute(guarded, read - 30, read) == "UPDATE 1"
    assert await second.execute(guarded, read - 50, read) == "UPDATE 0"


async def test_repeatable_read_refuses_the_lost_update(two: list[asyncpg.Connection]) -> None:
    first, second = two
    await second.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert await balance(second) == 100
    await first.execute("UPDATE guide SET balance = 70 WHERE name = 'alice'")
    with pytest.raises(asyncpg.SerializationError):
        await second.execute("UPDATE guide SET balance = 50 WHERE name = 'alice'")


async def test_repeatable_read_allows_write_skew_and_serializable_does_not(
    two: list[asyncpg.Connection],
) -> None:
    """Each takes from one account what both together can spare."""
    total = "SELECT sum(balance) FROM guide"
    ends: list[list[bool]] = []
    for level in ("REPEATABLE READ", "SERIALIZABLE"):
        await two[0].execute("UPDATE guide SET balance = 100")
        for session in two:
            await session.execute(f"BEGIN ISOLATION LEVEL {level}")
        for session, name in zip(two, ("alice", "bob"), strict=True):
            if await session.fetchval(total) >= 150:
                await session.execute(
                    "UPDATE guide SET balance = balance - 150 WHERE name = $1", name
                )
        results = [await asyncio.gather(s.execute("COMMIT"), return_exceptions=True) for s in two]
        ends.append([isinstance(result[0], asyncpg.SerializationError) for result in results])
    assert ends == [[False, False], [False, True]]


@pytest.mark.parametrize(("end", "claimed"), [("COMMIT", False), ("ROLLBACK", True)])
async def test_on_conflict_do_nothing_waits_for_the_concurrent_claimant(
    two: list[asyncpg.Connection],
    end: str,
    claimed: bool,  # noqa: FBT001 - a case
) -> None:
    first, second = two
    claim = "INSERT INTO guide VALUES ('key', 0) ON CONFLICT DO NOTHING RETURNING name"
    await first.execute("BEGIN")
    assert await first.fetchval(claim) == "key"
    late = asyncio.create_task(second.fetchval(claim))
    await until_it_waits(second, first)
    await first.execute(end)
    assert (await late == "key") is claimed


async def test_what_a_claim_ran_into_is_seen_by_the_next_statement_only(
    two: list[asyncpg.Connection],
) -> None:
    """Under READ COMMITTED each statement has a snapshot of its own."""
    first, second = two
    await first.execute("BEGIN")
    await first.execute("INSERT INTO guide VALUES ('key', 7)")
    both = """WITH claim AS (INSERT INTO guide VALUES ('key', 0) ON CONFLICT DO NOTHING)
              SELECT balance FROM guide WHERE name = 'key'"""
    late = asyncio.create_task(second.fetchval(both))
    await until_it_waits(second, first)
    await first.execute("COMMIT")
    assert await late is None
    assert await balance(second, "key") == 7


async def test_averages_of_percentiles_are_not_percentiles(owner: asyncpg.Connection) -> None:
    """A server with 100 fast requests and one with 10,000 slow ones."""
    row = await owner.fetchrow(
        """WITH requests AS (
               SELECT 'quiet' AS server, 1.0 AS ms FROM generate_series(1, 100)
               UNION ALL SELECT 'busy', 101.0 FROM generate_series(1, 10000)
           ), each AS (
               SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY ms) AS p99
                 FROM requests GROUP BY server
           )
           SELECT (SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY ms) FROM requests),
                  (SELECT avg(p99) FROM each)"""
    )
    assert row is not None
    assert tuple(row) == (101, 51)
