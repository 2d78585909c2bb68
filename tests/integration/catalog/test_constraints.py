"""PostgreSQL itself refuses what must never be of products, and `ledger check` finds what was."""

from collections.abc import Mapping
from typing import Final

import asyncpg
import pytest
from tests.integration.catalog.shop import a_product, counted, move

from picopay.audit import verify
from picopay.infra.db import Db

ID: Final = "0198c0de-0000-7000-8000-000000000001"
CHECK_VIOLATION, INSUFFICIENT_PRIVILEGE = "23514", "42501"
OUT_OF_RANGE, UNIQUE_VIOLATION = "22003", "23505"

PRODUCT: Final = {
    "id": ID, "name": "Laptop", "currency": "USD", "price": 1, "stock": 0, "version": 0,
    "is_active": True,
}  # fmt: skip
MOVE: Final = {
    "product_id": ID, "version": 1, "id": ID, "delta": 5, "stock_after": 5, "reason": "opened",
    "order_id": None,
}  # fmt: skip


def insert(table: str, row: Mapping[str, object], **changed: object) -> str:
    values = {**row, **changed}
    texts = ", ".join("NULL" if v is None else f"'{v}'" for v in values.values())
    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({texts})"  # noqa: S608 - a test's own


async def refusal(connection: asyncpg.Connection, statement: str) -> str | None:
    try:
        await connection.execute(statement)
    except asyncpg.PostgresError as error:
        return error.sqlstate
    return None


async def test_rows_that_are_right_are_taken(owner: asyncpg.Connection) -> None:
    assert await refusal(owner, insert("products", PRODUCT)) is None
    assert await refusal(owner, insert("stock_moves", MOVE)) is None


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({"name": ""}, CHECK_VIOLATION),
        ({"name": "x" * 201}, CHECK_VIOLATION),
        ({"price": -1}, CHECK_VIOLATION),
        ({"price": 10**12}, CHECK_VIOLATION),
        ({"stock": -1}, CHECK_VIOLATION),
        ({"stock": 2**63}, OUT_OF_RANGE),
        ({"version": -1}, CHECK_VIOLATION),
    ],
)
async def test_a_product_that_cannot_be_is_refused(
    owner: asyncpg.Connection, changed: dict[str, object], state: str
) -> None:
    assert await refusal(owner, insert("products", PRODUCT, **changed)) == state


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 0},
        {"delta": 0},
        {"stock_after": -1},
        {"delta": 6},  # from less than nothing
        {"delta": 2**31, "stock_after": 2**31},  # more than is ever set
        {"reason": "lost"},
        {"reason": "reserved", "delta": -1},  # by nobody's order
        {"reason": "adjusted", "order_id": ID},
        {"reason": "reserved", "order_id": ID},  # and yet more afterwards
        {"reason": "returned", "order_id": ID, "delta": -1},
        {"delta": -1},
    ],
)
async def test_a_move_that_cannot_be_is_refused(
    owner: asyncpg.Connection, changed: dict[str, object]
) -> None:
    assert await refusal(owner, insert("stock_moves", MOVE, **changed)) == CHECK_VIOLATION


async def test_a_version_happens_once(owner: asyncpg.Connection) -> None:
    await owner.execute(insert("stock_moves", MOVE))
    assert await refusal(owner, insert("stock_moves", MOVE)) == UNIQUE_VIOLATION


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE stock_moves SET delta = delta",
        "DELETE FROM stock_moves",
        "TRUNCATE stock_moves",
        "DELETE FROM products",
        "UPDATE products SET id = id",
        "UPDATE products SET created_at = now()",
    ],
)
async def test_the_app_can_neither_rewrite_history_nor_delete_a_product(
    db: Db, statement: str
) -> None:
    async with db.read() as tx:
        assert await refusal(tx.driver, statement) == INSUFFICIENT_PRIVILEGE


TAMPERINGS = {
    "stock": {
        "UPDATE products SET stock = 9": "stock is 9, its moves sum to 6",
        "UPDATE products SET version = 3": "version is 3, it has 2 moves",
        "DELETE FROM stock_moves": "stock is 6, its moves sum to 0",
        "DELETE FROM products": "is missing, it has 2 moves",
    },
    "stock-moves": {
        "UPDATE stock_moves SET version = 4 WHERE version = 2": "move 4 leaves a gap before it",
        "UPDATE stock_moves SET stock_after = 7 WHERE version = 2": "tells a stock of 7, it was 6",
        "UPDATE stock_moves SET delta = 9 WHERE version = 1": "tells a stock of 10, it was 9",
    },
    "stock-history": {
        "GRANT UPDATE ON stock_moves TO picopay_app": "picopay_app may UPDATE stock_moves",
    },
}


@pytest.mark.parametrize(
    ("invariant", "deed"), [(name, deed) for name, deeds in TAMPERINGS.items() for deed in deeds]
)
async def test_the_check_names_what_was_tampered_with(
    db: Db, owner: asyncpg.Connection, invariant: str, deed: str
) -> None:
    product = await a_product(db, stock=10)
    await move(db, [counted(product.id, 4)])
    # As somebody could who has the database in his hands.
    dropped = "stock_moves_stock_before_not_negative"
    await owner.execute(f"ALTER TABLE stock_moves DROP CONSTRAINT {dropped}")
    before = {report.name: report for report in await verify(db)}
    try:
        await owner.execute(deed)
        after = {report.name: report for report in await verify(db)}
    finally:
        await owner.execute("REVOKE UPDATE ON stock_moves FROM picopay_app")
        await owner.execute("TRUNCATE stock_moves")
        await owner.execute(
            f"ALTER TABLE stock_moves ADD CONSTRAINT {dropped} CHECK (stock_after - delta >= 0)"
        )
    assert not any(report.drifts for report in before.values())
    assert [before[name].checked for name in TAMPERINGS] == [1, 2, 1]
    assert any(TAMPERINGS[invariant][deed] in drift for drift in after[invariant].named)
