"""What each role of the database may do, relation by relation: a new one needs a decision here."""

from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import pytest
from tests.conftest import Stores

from picopay.infra.sessions import APP_ROLE

READONLY_ROLE: Final = "picopay_readonly"
INSUFFICIENT_PRIVILEGE: Final = "42501"

_ADD: Final = "INSERT, SELECT"
_QUEUE: Final = "DELETE, INSERT, SELECT, UPDATE"
_PRODUCT_COLUMNS: Final = (
    "archived_at, currency, is_active, name, price, stock, updated_at, version"
)
_KEY_COLUMNS: Final = "created_at, expires_at, id, merchant_id, name, prefix, revoked_at, scopes"
_FAKE_COLUMNS: Final = (
    "amount, created_at, currency, order_id, outcome, payment_id, refunded_at, settles_at"
)

# relation: (what the app may do, what an operator with the read-only role may do)
DECIDED: Final = {
    "accounts": (
        "INSERT (currency, may_overdraw, owner), SELECT, UPDATE (credits, debits, version)",
        "SELECT",
    ),
    "postings": (_ADD, "SELECT"),
    "entries": ("SELECT", "SELECT"),
    "users": (_ADD, "SELECT"),
    "charges": (f"{_ADD}, UPDATE (refunded)", "SELECT"),
    "charge_refunds": (_ADD, "SELECT"),
    "idempotency_keys": ("DELETE, INSERT, SELECT", ""),
    "api_keys": (f"{_ADD}, UPDATE (expires_at, revoked_at)", f"SELECT ({_KEY_COLUMNS})"),
    "api_key_uses": (f"{_ADD}, UPDATE", "SELECT"),
    "installation": ("SELECT", ""),
    "alembic_version": ("SELECT", "SELECT"),
    "outbox_events": ("DELETE, INSERT, SELECT", "SELECT"),
    "outbox_queue": (_QUEUE, "SELECT"),
    "outbox_consumed": ("DELETE, INSERT, SELECT", "SELECT"),
    "dead_letters": (
        f"{_ADD}, UPDATE (note, resolution, resolved_at, resolved_by)",
        "SELECT",
    ),
    "dead_letter_audits": (_ADD, "SELECT"),
    "worker_duties": (f"{_ADD}, UPDATE", "SELECT"),
    "transfers": (f"{_ADD}, UPDATE (processed_at, status)", "SELECT"),
    "products": (f"{_ADD}, UPDATE ({_PRODUCT_COLUMNS})", "SELECT"),
    "stock_moves": (_ADD, "SELECT"),
    "fake_payments": (f"{_ADD}, UPDATE (refunded_at)", f"SELECT ({_FAKE_COLUMNS})"),
    "orders": (f"{_ADD}, UPDATE (payment_id, status, updated_at)", "SELECT"),
    "order_items": (_ADD, "SELECT"),
    "order_payments": (f"{_ADD}, UPDATE (posting_id, status)", "SELECT"),
    "order_refunds": (f"{_ADD}, UPDATE (posting_id, status)", "SELECT"),
    "order_events": (_ADD, "SELECT"),
}

_RELATIONS: Final = """
SELECT relname FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm', 'p', 'S', 'f')
   AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
"""
_OF_RELATIONS: Final = """
SELECT relname, privilege_type FROM pg_class, aclexplode(relacl) AS given
 WHERE relnamespace = 'public'::regnamespace AND given.grantee = to_regrole($1)::oid
"""
_OF_COLUMNS: Final = """
SELECT relname, privilege_type, attname
  FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid, aclexplode(attacl) AS given
 WHERE relnamespace = 'public'::regnamespace AND given.grantee = to_regrole($1)::oid
"""
_OF_EVERYBODY: Final = """
SELECT relname FROM pg_class, aclexplode(relacl) AS given
 WHERE relnamespace = 'public'::regnamespace AND given.grantee = 0
   AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
"""


async def granted(owner: asyncpg.Connection, role: str) -> dict[str, str]:
    """What the catalog says that the role may do, in the words of a GRANT."""
    whole = {tuple(row): "" for row in await owner.fetch(_OF_RELATIONS, role)}
    columns: dict[tuple[str, str], list[str]] = {}
    for table, word, column in await owner.fetch(_OF_COLUMNS, role):
        columns.setdefault((table, word), []).append(column)
    parts = {key: f" ({', '.join(sorted(names))})" for key, names in columns.items()}
    told: dict[str, list[str]] = {}
    for (table, word), which in sorted((parts | whole).items()):
        told.setdefault(table, []).append(word + which)
    return {table: ", ".join(words) for table, words in told.items()}


async def relations(owner: asyncpg.Connection) -> set[str]:
    return {row["relname"] for row in await owner.fetch(_RELATIONS)}


@pytest.fixture
async def reader(clean: Stores) -> AsyncIterator[asyncpg.Connection]:
    """A connection of somebody with the read-only role alone."""
    connection = await asyncpg.connect(clean.owner_url)
    await connection.execute(f"SET SESSION AUTHORIZATION {READONLY_ROLE}")
    yield connection
    await connection.close()


async def test_of_every_relation_it_is_decided_who_may_do_what(owner: asyncpg.Connection) -> None:
    assert await relations(owner) == set(DECIDED)


@pytest.mark.parametrize(("role", "place"), [(APP_ROLE, 0), (READONLY_ROLE, 1)])
async def test_a_role_may_do_what_was_decided_and_nothing_else(
    owner: asyncpg.Connection, role: str, place: int
) -> None:
    wanted = {table: words[place] for table, words in DECIDED.items() if words[place]}
    assert await granted(owner, role) == wanted


async def test_nothing_is_granted_to_everybody(owner: asyncpg.Connection) -> None:
    assert await owner.fetch(_OF_EVERYBODY) == []


async def test_a_new_table_and_a_new_privilege_would_be_noticed(owner: asyncpg.Connection) -> None:
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute("CREATE TABLE loot (id int)")
    await owner.execute(f"GRANT UPDATE (amount) ON postings TO {APP_ROLE}")
    await owner.execute(f"GRANT SELECT (digest) ON api_keys TO {READONLY_ROLE}")
    await owner.execute("GRANT SELECT ON users TO PUBLIC")
    assert await relations(owner) - set(DECIDED) == {"loot"}
    assert (await granted(owner, APP_ROLE))["postings"] == f"{_ADD}, UPDATE (amount)"
    assert "digest" in (await granted(owner, READONLY_ROLE))["api_keys"]
    assert [row["relname"] for row in await owner.fetch(_OF_EVERYBODY)] == ["users"]
    await transaction.rollback()


@pytest.mark.parametrize("role", [APP_ROLE, READONLY_ROLE])
async def test_a_role_can_neither_log_in_nor_become_more(
    owner: asyncpg.Connection, role: str
) -> None:
    query = """SELECT rolsuper OR rolcanlogin OR rolcreaterole OR rolcreatedb OR rolreplication
                      OR rolbypassrls OR EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid)
                 FROM pg_roles AS r WHERE rolname = $1"""
    assert await owner.fetchval(query, role) is False


@pytest.mark.parametrize("table", DECIDED)
async def test_the_reader_reads_and_writes_nothing(reader: asyncpg.Connection, table: str) -> None:
    may = DECIDED[table][1]
    columns = may.partition("(")[2].removesuffix(")") or "*"
    if may:
        await reader.fetch(f"SELECT {columns} FROM {table} LIMIT 1")  # noqa: S608 - ours
    statements = [
        f"DELETE FROM {table}",  # noqa: S608 - ours
        f"INSERT INTO {table} DEFAULT VALUES",
        f"TRUNCATE {table}",
    ]
    if table == "entries":  # a view that nobody can write to
        statements.clear()
    if may != "SELECT":
        statements.append(f"SELECT * FROM {table}")  # noqa: S608 - ours
    for statement in statements:
        with pytest.raises(asyncpg.PostgresError) as refused:
            await reader.execute(statement)
        assert refused.value.sqlstate == INSUFFICIENT_PRIVILEGE, statement


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT digest FROM api_keys",
        "SELECT pepper FROM installation",
        "SELECT callback_url FROM fake_payments",
        "SELECT key FROM idempotency_keys",
        "UPDATE accounts SET credits = credits + 1",
        "CREATE TABLE loot (id int)",
        f"SET ROLE {APP_ROLE}",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY users TO PROGRAM 'true'",
    ],
)
async def test_the_reader_gets_at_no_secret_and_at_no_other_role(
    reader: asyncpg.Connection, statement: str
) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await reader.execute(statement)
    assert refused.value.sqlstate == INSUFFICIENT_PRIVILEGE
