"""PostgreSQL itself refuses what must never be: by the app's privileges, checks and keys."""

from collections.abc import Mapping
from typing import Final

import asyncpg
import pytest
from tests.builders import a_deposit

from picopay.infra.db import Db
from picopay.users import service as users

INSUFFICIENT_PRIVILEGE: Final = "42501"
CHECK_VIOLATION: Final = "23514"
UNIQUE_VIOLATION: Final = "23505"
NOT_NULL_VIOLATION: Final = "23502"

ID: Final = "0198c0de-0000-7000-8000-000000000001"
OTHER_ID: Final = "0198c0de-0000-7000-8000-000000000002"


def insert(table: str, row: Mapping[str, object], **changed: object) -> str:
    values = {**row, **changed}
    texts = ", ".join("NULL" if v is None else f"'{v}'" for v in values.values())
    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({texts})"  # noqa: S608 - a test's own


def an_account_row(**changed: object) -> str:
    row = {
        "owner": "user:1", "currency": "USD", "may_overdraw": False, "debits": 1, "credits": 2,
        "version": 2,
    }  # fmt: skip
    return insert("accounts", row, **changed)


def a_posting_row(**changed: object) -> str:
    row = {
        "debit_owner": "user:1", "id": ID, "credit_owner": "merchant:m", "currency": "USD",
        "amount": 5, "kind": "charge", "debit_balance": 1, "debit_version": 7,
        "credit_balance": 5, "credit_version": 1,
    }  # fmt: skip
    return insert("postings", row, **changed)


def a_charge_row(**changed: object) -> str:
    row = {
        "owner": "user:1", "id": ID, "merchant_id": "m", "currency": "USD", "amount": 5,
        "balance_after": 0, "idempotency_key": None,
    }  # fmt: skip
    return insert("charges", row, **changed)


def a_refund_row(**changed: object) -> str:
    row = {
        "owner": "user:1", "id": ID, "charge_id": ID, "merchant_id": "m", "currency": "USD",
        "amount": 5, "refunded_after": 5, "amount_given": True, "created_at": "2026-01-01",
    }  # fmt: skip
    return insert("charge_refunds", row, **changed)


def a_key_row(**changed: object) -> str:
    row = {"key": "k", "merchant_id": "m", "operation": "charge", "resource_id": ID}
    return insert("idempotency_keys", row, **changed)


def a_user_row(user_id: int) -> str:
    return insert("users", {"id": user_id})


def an_api_key_row(**changed: object) -> str:
    row = {
        "id": ID, "name": "n", "merchant_id": "m", "scopes": "{charges}", "prefix": "pk_live_abcd",
        "digest": "\\x01",
    }  # fmt: skip
    return insert("api_keys", row, **changed)


async def refusal(owner: asyncpg.Connection, statement: str) -> str | None:
    try:
        await owner.execute(statement)
    except asyncpg.PostgresError as error:
        return error.sqlstate
    return None


@pytest.mark.parametrize(
    "row",
    [
        an_account_row(),
        an_account_row(debits=0, credits=0, version=0),
        an_account_row(may_overdraw=True, debits=2, credits=1),
        a_posting_row(),
        a_posting_row(amount=10**15),
        a_posting_row(debit_balance=-5),
        a_charge_row(),
        a_key_row(),
        a_user_row(1),
        a_user_row(2**63 - 1),
        an_api_key_row(),
        a_charge_row(refunded=5),
        a_refund_row(refunded_after=6),
    ],
)
async def test_a_row_that_breaks_no_rule_is_taken(owner: asyncpg.Connection, row: str) -> None:
    assert await refusal(owner, row) is None


@pytest.mark.parametrize(
    "row",
    [
        an_account_row(debits=3),
        an_account_row(debits=-1),
        an_account_row(may_overdraw=True, credits=-1),
        an_account_row(may_overdraw=True, version=-1, debits=0, credits=0),
        an_account_row(version=0),
        an_account_row(version=0, credits=0, may_overdraw=True),
        a_posting_row(amount=0),
        a_posting_row(amount=-1),
        a_posting_row(amount=10**15 + 1),
        a_posting_row(credit_owner="user:1"),
        a_posting_row(debit_version=0),
        a_posting_row(credit_version=0),
        a_charge_row(amount=0),
        a_charge_row(amount=-5),
        a_charge_row(balance_after=-1),
        a_charge_row(refunded=-1),
        a_charge_row(refunded=6),
        a_refund_row(amount=0),
        a_refund_row(amount=10**15 + 1, refunded_after=10**15 + 1),
        a_refund_row(refunded_after=4),
        a_user_row(0),
        a_user_row(-1),
        insert("installation", {"id": 2, "pepper": "\\x00"}),
    ],
)
async def test_a_row_that_breaks_a_check_is_refused(owner: asyncpg.Connection, row: str) -> None:
    assert await refusal(owner, row) == CHECK_VIOLATION


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (an_account_row(), an_account_row(credits=9)),
        (a_posting_row(), a_posting_row(debit_version=8)),
        (a_posting_row(), a_posting_row(id=OTHER_ID)),
        (a_charge_row(), a_charge_row(amount=6)),
        (a_refund_row(), a_refund_row(refunded_after=6)),
        (a_refund_row(), a_refund_row(id=OTHER_ID)),
        (a_key_row(), a_key_row(resource_id=OTHER_ID)),
        (a_user_row(1), a_user_row(1)),
        (an_api_key_row(), an_api_key_row(digest="\\x02")),
        (an_api_key_row(), an_api_key_row(id=OTHER_ID)),
    ],
)
async def test_a_second_row_of_one_key_is_refused(
    owner: asyncpg.Connection, first: str, second: str
) -> None:
    assert await refusal(owner, first) is None
    assert await refusal(owner, second) == UNIQUE_VIOLATION


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (an_account_row(), an_account_row(currency="JPY")),
        (a_posting_row(), a_posting_row(id=OTHER_ID, currency="JPY")),
        (a_posting_row(), a_posting_row(id=OTHER_ID, debit_version=8, credit_version=2)),
        (a_key_row(), a_key_row(operation="deposit")),
        (a_key_row(), a_key_row(merchant_id="other")),
    ],
)
async def test_what_differs_in_a_part_of_the_key_stands_beside_it(
    owner: asyncpg.Connection, first: str, second: str
) -> None:
    assert await refusal(owner, first) is None
    assert await refusal(owner, second) is None


@pytest.mark.parametrize(
    "row",
    [
        an_account_row(may_overdraw=None),
        an_account_row(debits=None),
        a_posting_row(credit_owner=None),
        a_posting_row(kind=None),
        a_posting_row(debit_balance=None),
        a_charge_row(merchant_id=None),
        a_charge_row(balance_after=None),
        a_charge_row(refunded=None),
        a_refund_row(refunded_after=None),
        a_key_row(resource_id=None),
        an_api_key_row(digest=None),
    ],
)
async def test_nothing_that_matters_may_be_missing(owner: asyncpg.Connection, row: str) -> None:
    assert await refusal(owner, row) == NOT_NULL_VIOLATION


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE postings SET amount = 1",
        "UPDATE postings SET kind = 'gift'",
        "DELETE FROM postings",
        "TRUNCATE postings",
        "UPDATE charges SET amount = 1",
        "DELETE FROM charges",
        "UPDATE charge_refunds SET amount = 1",
        "DELETE FROM charge_refunds",
        "TRUNCATE charge_refunds",
        "TRUNCATE charges",
        "DELETE FROM accounts",
        "TRUNCATE accounts",
        "UPDATE accounts SET may_overdraw = true",
        "UPDATE accounts SET owner = 'user:2'",
        an_account_row(owner="user:7"),
        an_account_row(owner="user:7", debits=0, credits=0, version=0),
        "UPDATE idempotency_keys SET resource_id = gen_random_uuid()",
        "DELETE FROM users",
        "UPDATE installation SET pepper = ''",
        "DELETE FROM api_keys",
        "UPDATE api_keys SET scopes = '{ledger}'",
        "UPDATE alembic_version SET version_num = 'x'",
        "ALTER TABLE postings DISABLE ROW LEVEL SECURITY",
        "DROP TABLE postings",
        "CREATE TABLE loot (id int)",
    ],
)
async def test_the_apps_role_cannot_rewrite_history(db: Db, statement: str) -> None:
    await users.create(db, 1)
    await users.deposit(db, a_deposit())
    with pytest.raises(asyncpg.PostgresError) as refused:
        async with db.begin() as tx:
            await tx.driver.execute(statement)
    assert refused.value.sqlstate == INSUFFICIENT_PRIVILEGE


async def test_the_app_works_as_its_own_role(db: Db) -> None:
    async with db.read() as tx:
        assert await tx.driver.fetchval("SELECT current_user") == "picopay_app"
        query = "SELECT rolsuper OR rolcanlogin FROM pg_roles WHERE rolname = current_user"
        assert await tx.driver.fetchval(query) is False
