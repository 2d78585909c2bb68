"""`picopay ledger check` on ledgers that were tampered with behind the application's back."""

import json
import os
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from tests.builders import a_charge, a_refund
from tests.conftest import Stores
from tests.forks import run_command
from tests.processes import Ran

from picopay.charges import refunds
from picopay.charges import service as charges
from picopay.charges.model import Approved
from picopay.cli.ledger import verify
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.kernel.money import Money
from picopay.users import service as users
from picopay.users.model import DepositCommand

ROOT = Path(__file__).parents[2]

# What is done to the ledger, and what the check must say of it. Constraints that would stop it
# are dropped first, as somebody with the database in his hands could.
TAMPERINGS = {
    "balances": (
        "UPDATE accounts SET credits = credits + 1 WHERE owner = 'merchant:default'",
        "account merchant:default USD: credits are 5001, its postings sum to 5000",
    ),
    "zero-sum": (
        "UPDATE accounts SET debits = debits + 7 WHERE owner = 'world'",
        "USD: debits are 105507, credits are 105500",
    ),
    "two-sides": (
        "DELETE FROM accounts WHERE owner = 'merchant:default'",
        "no account merchant:default USD",
    ),
    "unchangeable": (
        "GRANT UPDATE ON postings TO picopay_app",
        "picopay_app may UPDATE postings",
    ),
    "charges": ("DELETE FROM postings WHERE kind = 'charge'", "has no such posting"),
    "refunds": ("DELETE FROM postings WHERE kind = 'refund'", "has no such posting"),
    "refunded": (
        "UPDATE charges SET refunded = refunded + 1 WHERE refunded > 0",
        "501 refunded, its refunds sum to 500",
    ),
    "keyed-refunds": (
        "DELETE FROM idempotency_keys WHERE operation = 'refund'",
        "0 keys lead to it",
    ),
    "keyed-charges": ("DELETE FROM idempotency_keys", "leads to nothing"),
    "keys": ("DELETE FROM charges", "leads to a missing charge"),
    "transfers": (
        """INSERT INTO transfers (transaction_id, id, source, destination, currency, amount, status,
                                  processed_at)
           VALUES ('t', gen_random_uuid(), 'a', 'b', 'USD', 1, 'PROCESSED', now())""",
        "transfer t has no such posting",
    ),
    "owed-transfers": (
        """INSERT INTO transfers (transaction_id, id, source, destination, currency, amount)
           VALUES ('t', gen_random_uuid(), 'a', 'b', 'USD', 1)""",
        "transfer t is processing, and nobody is going to process it",
    ),
}
MORE_REFUND_TAMPERINGS = {
    "a posting without its refund": (
        *("refunds", "DELETE FROM charge_refunds"),
        "is a refund without a refund",
    ),
    "a refund to another user": (
        *("refunds", "UPDATE charge_refunds SET owner = 'user:2'"),
        "has no such posting",
    ),
    "a refund of another amount": (
        *("refunds", "UPDATE charge_refunds SET amount = amount - 1"),
        "has no such posting",
    ),
    "a refund that its charge does not count": (
        *("refunded", "UPDATE charges SET refunded = 0"),
        "0 refunded, its refunds sum to 500",
    ),
    "a refund removed": (
        *("refunded", "DELETE FROM charge_refunds WHERE amount = 300"),
        "500 refunded, its refunds sum to 200",
    ),
    "a refund of no charge": (
        *("refunded", "UPDATE charge_refunds SET charge_id = gen_random_uuid()"),
        "0 refunded, its refunds sum to",
    ),
    "a running total changed": (
        *("refunded", "UPDATE charge_refunds SET refunded_after = refunded_after + 1"),
        "500 refunded, its refunds sum to 500",
    ),
    "two keys for one refund": (
        "keyed-refunds",
        """UPDATE idempotency_keys SET resource_id = (SELECT id FROM charge_refunds LIMIT 1)
            WHERE operation = 'refund'""",
        "2 keys lead to it",
    ),
    "a key without its refund": (
        *("keys", "DELETE FROM charge_refunds"),
        "leads to a missing refund",
    ),
}
MORE_BALANCE_TAMPERINGS = {
    "a posting removed": (
        "DELETE FROM postings WHERE kind = 'deposit'",
        "account user:1 USD: credits are 100500, its postings sum to 500",
    ),
    "an amount changed": ("UPDATE postings SET amount = amount + 1", "postings sum to"),
    "a running balance changed": (
        "UPDATE postings SET debit_balance = debit_balance - 1",
        "postings tell a wrong balance",
    ),
    "a version changed": (
        "UPDATE postings SET credit_version = credit_version + 5",
        "leave a gap in its versions",
    ),
    "an account overdrawn": (
        """ALTER TABLE accounts DROP CONSTRAINT accounts_never_overdrawn;
           UPDATE accounts SET debits = credits + 1 WHERE owner = 'user:1'""",
        "account user:1 USD: is overdrawn",
    ),
}
UNDO = (
    "REVOKE UPDATE ON postings FROM picopay_app;"
    "TRUNCATE accounts;"
    "ALTER TABLE accounts DROP CONSTRAINT IF EXISTS accounts_never_overdrawn;"
    "ALTER TABLE accounts ADD CONSTRAINT accounts_never_overdrawn"
    " CHECK (may_overdraw OR credits >= debits)"
)


@pytest.fixture
async def ledger(db: Db) -> Db:
    """A deposit of 1000.00, charges of 20.00 with a key and 30.00 without, refunds of 2 and 3."""
    await users.create(db, 1)
    money = Money(100_000, "USD")
    await users.deposit(db, DepositCommand(new_id(), "default", 1, money, None))
    commands = [a_charge(minor=2000, key=str(uuid4())), a_charge(minor=3000, key=None)]
    _, charged = await charges.commit_batch(db, commands)
    assert isinstance(charged, Approved)
    for minor in (200, 300):
        await refunds.refund(db, a_refund(charged.charge, minor))
    return db


async def test_an_honest_ledger_is_clean_and_everything_is_looked_at(ledger: Db) -> None:
    reports = {report.name: report for report in await verify(ledger)}
    assert {name: report.checked for name, report in reports.items()} == {
        "balances": 3,
        "zero-sum": 1,
        "two-sides": 5,
        "unchangeable": 1,
        "charges": 2,
        "keyed-charges": 1,
        "keys": 4,
        "refunds": 2,
        "refunded": 1,
        "keyed-refunds": 2,
        "transfers": 0,
        "owed-transfers": 0,
        "stock": 0,
        "stock-moves": 0,
        "stock-history": 1,
        **dict.fromkeys(("order-totals", "order-stock", "order-payments", "payment-names"), 0),
        **dict.fromkeys(("order-refunds", "open-payments"), 0),
        "paid-orders": 0,
    }
    assert not any(report.drifts for report in reports.values())


@pytest.mark.parametrize("invariant", TAMPERINGS)
async def test_each_invariant_names_its_drift(
    ledger: Db, owner: asyncpg.Connection, invariant: str
) -> None:
    statement, expected = TAMPERINGS[invariant]
    await owner.execute(statement)
    try:
        reports = {report.name: report for report in await verify(ledger)}
    finally:
        await owner.execute(UNDO)
    assert reports[invariant].drifts > 0
    assert any(expected in drift for drift in reports[invariant].named), reports[invariant].named


@pytest.mark.parametrize("deed", MORE_REFUND_TAMPERINGS)
async def test_refunds_are_compared_with_their_charge_their_posting_and_their_key(
    ledger: Db, owner: asyncpg.Connection, deed: str
) -> None:
    invariant, statement, expected = MORE_REFUND_TAMPERINGS[deed]
    await owner.execute(statement)
    report = next(report for report in await verify(ledger) if report.name == invariant)
    assert any(expected in drift for drift in report.named), report.named


@pytest.mark.parametrize("deed", MORE_BALANCE_TAMPERINGS)
async def test_accounts_are_replayed_posting_by_posting(
    ledger: Db, owner: asyncpg.Connection, deed: str
) -> None:
    statement, expected = MORE_BALANCE_TAMPERINGS[deed]
    await owner.execute(statement)
    try:
        report = next(report for report in await verify(ledger) if report.name == "balances")
    finally:
        await owner.execute(UNDO)
    assert any(expected in drift for drift in report.named), report.named


async def test_drifts_are_counted_but_not_all_named(ledger: Db, owner: asyncpg.Connection) -> None:
    await owner.execute(
        "INSERT INTO accounts (owner, currency, may_overdraw, credits, version)"
        " SELECT 'user:' || n, 'USD', false, 1, 1 FROM generate_series(100, 1500) AS n"
    )
    report = next(report for report in await verify(ledger) if report.name == "balances")
    assert report.checked == 1404
    assert report.drifts > 1400
    assert len(report.named) == 20


async def test_the_command_exits_1_and_names_the_drift(
    ledger: Db, owner: asyncpg.Connection, clean: Stores
) -> None:
    def check() -> Ran:
        environment = os.environ | {"DATABASE_URL": clean.database_url}
        return run_command(["ledger", "check", "--json"], environment, cwd=ROOT)

    before = check()
    await owner.execute("UPDATE accounts SET credits = credits + 1 WHERE owner = 'user:1'")
    after = check()
    assert (before.returncode, json.loads(before.stdout)["clean"]) == (0, True)
    assert (after.returncode, json.loads(after.stdout)["clean"]) == (1, False)
    assert "account user:1 USD" in after.stdout
