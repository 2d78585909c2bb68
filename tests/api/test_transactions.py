"""Transaction webhooks: acknowledged when they are kept, once for each id, and shown."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest
from tests.api.steps import a_key, problem
from tests.conftest import serving
from tests.integration.outbox.workers import drained

from picopay.access.model import Scope
from picopay.infra.db import Db
from picopay.infra.settings import Settings
from picopay.kernel import signing

PATH = "/v1/webhooks/transactions"
SECRET, OLD_SECRET = "whsec_new-and-long-enough", "whsec_old-and-long-enough"


def a_transaction(**changes: object) -> dict[str, object]:
    body: dict[str, object] = {
        "transaction_id": "txn_abc123",
        "source_account": "acc_user_1",
        "destination_account": "acc_merchant_2",
        "amount": 1500,
        "currency": "INR",
    }
    return body | changes


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """Of an application that works in the background, without delay."""
    async with serving(
        settings, picopay_worker=True, transaction_processing_delay_seconds=0
    ) as client:
        yield client


@pytest.fixture
async def slow(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """Likewise, with a delay that no test waits for."""
    async with serving(settings, picopay_worker=True) as client:
        yield client


async def test_a_webhook_is_accepted_processed_and_shown(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    answer = await client.post(PATH, json=a_transaction())
    assert answer.status_code == 202
    assert answer.content == b'{"transaction_id":"txn_abc123","status":"accepted"}'
    await drained(owner)
    shown = await client.get("/v1/transactions/txn_abc123")
    assert list(shown.json()) == [
        *a_transaction(),
        "status",
        "created_at",
        "processed_at",
    ]
    assert '"amount":1500.00,' in shown.text
    assert shown.json()["status"] == "PROCESSED"
    created, processed = (
        datetime.fromisoformat(shown.json()[name]) for name in ("created_at", "processed_at")
    )
    assert before < created <= processed
    assert shown.json()["created_at"].endswith("Z")
    for account, balance in (("acc_user_1", -1500), ("acc_merchant_2", 1500)):
        found = (await client.get(f"/v1/accounts/external:{account}")).json()
        assert found["balances"] == [{"currency": "INR", "balance": balance}]


async def test_accounts_may_have_slashes_in_their_names(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    names = {"source_account": "bank/7", "destination_account": "bank/7/entries"}
    assert (await client.post(PATH, json=a_transaction() | names)).status_code == 202
    await drained(owner)
    found = (await client.get("/v1/accounts/external:bank/7")).json()
    assert (found["owner"], found["balances"][0]["balance"]) == ("external:bank/7", -1500)
    for path in ("bank%2F7/entries", "bank/7/entries/entries"):
        (entry,) = (await client.get(f"/v1/accounts/external:{path}")).json()["data"]
        assert entry["amount"] in {-1500, 1500}


async def test_before_its_delay_a_transaction_is_processing(slow: httpx2.AsyncClient) -> None:
    await slow.post(PATH, json=a_transaction())
    shown = (await slow.get("/v1/transactions/txn_abc123")).json()
    assert (shown["status"], shown["processed_at"]) == ("PROCESSING", None)


async def test_concurrent_repeats_are_one_record_and_one_posting(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    answers = await asyncio.gather(*(client.post(PATH, json=a_transaction()) for _ in range(10)))
    assert {(a.status_code, a.content) for a in answers} == {
        (202, b'{"transaction_id":"txn_abc123","status":"accepted"}')
    }
    await drained(owner)
    await client.post(PATH, json=a_transaction())
    await drained(owner)
    for table in ("transfers", "postings", "outbox_events"):
        assert await owner.fetchval(f"SELECT count(*) FROM {table}") == 1  # noqa: S608 - ours


async def test_an_amount_beyond_32_bits_is_processed_like_any_other(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    amount = 2**31 + 1
    assert (await client.post(PATH, json=a_transaction(amount=amount))).status_code == 202
    await drained(owner)
    found = (await client.get("/v1/accounts/external:acc_merchant_2")).json()
    assert found["balances"] == [{"currency": "INR", "balance": amount}]


async def test_a_burst_without_delay_leaves_the_server_answering(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    bodies = [a_transaction(transaction_id=f"txn_{number}") for number in range(200)]
    answers = await asyncio.gather(*(client.post(PATH, json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {202}
    assert (await client.get("/health")).status_code == 200
    await drained(owner)
    assert await owner.fetchval("SELECT count(*) FROM postings") == len(bodies)


@pytest.mark.parametrize(
    "change",
    [{"amount": 1501}, {"currency": "USD"}, {"source_account": "x"}, {"destination_account": "x"}],
)
async def test_a_conflicting_repeat_is_accepted_counted_and_changes_nothing(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, change: dict[str, Any]
) -> None:
    counted = 'transfers_received_total{outcome="conflicting"}'

    async def count() -> float:
        text = (await client.get("/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith(counted)]
        return float(lines[0].split()[-1]) if lines else 0

    await client.post(PATH, json=a_transaction())
    await drained(owner)
    before, counted_before = (
        (await client.get("/v1/transactions/txn_abc123")).content,
        await count(),
    )
    assert (await client.post(PATH, json=a_transaction(**change))).status_code == 202
    await drained(owner)
    assert (await client.get("/v1/transactions/txn_abc123")).content == before
    assert await count() == counted_before + 1
    assert await owner.fetchval("SELECT count(*) FROM postings") == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"transaction_id": ""}, "transaction_id"),
        ({"transaction_id": "a b"}, "transaction_id"),
        ({"transaction_id": "a\0b"}, "transaction_id"),
        ({"transaction_id": "x" * 151}, "transaction_id"),
        ({"transaction_id": 7}, "transaction_id"),
        ({"source_account": ""}, "source_account"),
        ({"destination_account": "acc_user_1"}, "destination_account"),
        ({"amount": 0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": "0.001"}, "amount"),
        ({"amount": None}, "amount"),
        ({"currency": "XXX"}, "currency"),
        ({"currency": "inr"}, "currency"),
    ],
)
async def test_what_is_malformed_is_told_and_not_kept(
    slow: httpx2.AsyncClient, owner: asyncpg.Connection, change: dict[str, Any], field: str
) -> None:
    told = problem(await slow.post(PATH, json=a_transaction(**change)), 422, "validation")
    assert [error["field"] for error in told["errors"]] == [field]
    assert await owner.fetchval("SELECT count(*) FROM transfers") == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"a":' * 500])
async def test_what_is_no_object_is_told(slow: httpx2.AsyncClient, body: bytes) -> None:
    problem(await slow.post(PATH, content=body), 422, "validation")


async def test_an_unknown_transaction_is_not_found(slow: httpx2.AsyncClient) -> None:
    problem(await slow.get("/v1/transactions/nope"), 404, "transaction-not-found")


async def test_neither_the_webhook_nor_its_status_needs_an_api_key(
    slow: httpx2.AsyncClient,
) -> None:
    del slow.headers["X-API-Key"]
    assert (await slow.post(PATH, json=a_transaction())).status_code == 202
    assert (await slow.get("/v1/transactions/txn_abc123")).status_code == 200
    problem(await slow.get("/v1/transactions"), 401, "api-key-invalid")


async def test_a_single_transaction_can_be_guarded_too(settings: Settings) -> None:
    async with serving(settings, transactions_require_api_key=True) as client:
        await client.post(PATH, json=a_transaction())
        assert (await client.get("/v1/transactions/txn_abc123")).status_code == 200
        del client.headers["X-API-Key"]
        problem(await client.get("/v1/transactions/txn_abc123"), 401, "api-key-invalid")


async def test_transactions_are_listed_newest_first_by_status_and_account(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, db: Db
) -> None:
    for number in range(5):
        body = a_transaction(transaction_id=f"t{number}", source_account=f"acc{number % 2}")
        await client.post(PATH, json=body)
    await drained(owner)

    async def listed(**query: str) -> list[str]:
        ids: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = (await client.get("/v1/transactions", params=query | cursor)).json()
            ids += [item["transaction_id"] for item in page["data"]]
            if not page["has_more"]:
                return ids
            cursor = {"cursor": page["next_cursor"]}

    newest_first = [f"t{number}" for number in reversed(range(5))]
    assert await listed(limit="2") == newest_first
    assert await listed(status="PROCESSED", limit="2") == newest_first
    assert await listed(status="FAILED") == []
    assert await listed(account="acc1", limit="1") == ["t3", "t1"]
    assert await listed(account="acc_merchant_2") == newest_first
    narrow = await a_key(db, scopes=[Scope.CHARGES])
    problem(await client.get("/v1/transactions", headers=narrow), 403, "scope-missing")


@pytest.fixture
async def signed(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """An application that wants signatures, of either secret."""
    async with serving(settings, transaction_webhook_secret=f"{SECRET}, {OLD_SECRET}") as client:
        yield client


@pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
async def test_a_signed_webhook_is_accepted(signed: httpx2.AsyncClient, secret: str) -> None:
    body = httpx2.Request("POST", "http://x", json=a_transaction()).content
    signature = signing.sign_hex(body, secret)["X-Signature"]
    for text in (signature, f"sha256={signature.upper()}"):
        answer = await signed.post(PATH, content=body, headers={"X-Signature": text})
        assert answer.status_code == 202


@pytest.mark.parametrize(
    "signature", [None, "", "0" * 64, "zz", "sha256=", "é", "0" * 5000, "0" * 63]
)
async def test_an_unsigned_or_wrongly_signed_webhook_is_refused_and_not_kept(
    signed: httpx2.AsyncClient, owner: asyncpg.Connection, signature: str | None
) -> None:
    headers = [] if signature is None else [(b"X-Signature", signature.encode("latin-1"))]
    answer = await signed.post(PATH, json=a_transaction(), headers=headers)
    problem(answer, 401, "signature-invalid")
    assert await owner.fetchval("SELECT count(*) FROM transfers") == 0


async def test_a_signature_is_checked_before_the_body_is_read(signed: httpx2.AsyncClient) -> None:
    problem(await signed.post(PATH, content=b"{"), 401, "signature-invalid")


async def test_the_request_id_is_carried_into_the_background(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await client.post(PATH, json=a_transaction(), headers={"X-Request-ID": "from-outside"})
    await drained(owner)
    assert await owner.fetchval("SELECT request_id FROM outbox_events") == "from-outside"
    await asyncio.sleep(0.05)
    lines = [line for line in capsys.readouterr().out.splitlines() if "transfer.processed" in line]
    assert len(lines) == 1
    assert "from-outside" in lines[0]


async def test_a_locked_account_stops_nobody_elses_transfers(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await client.post(PATH, json=a_transaction(source_account="hot"))
    await drained(owner)
    async with owner.transaction():
        await owner.execute("SELECT FROM accounts WHERE owner = 'external:hot' FOR UPDATE")
        bodies = [
            a_transaction(
                transaction_id=f"txn_{number}",
                source_account="hot" if number in {20, 21} else f"acc_{number}",
                destination_account=f"to_{number}",
            )
            for number in range(42)
        ]
        await asyncio.gather(*(client.post(PATH, json=body) for body in bodies))
        await drained(owner, seconds=3, but_events=2)
        await asyncio.sleep(1.5)
        waiting = await owner.fetch("SELECT attempts, releases > 0 FROM outbox_queue")
        assert len(waiting) == 2
        assert all(attempts <= 1 and postponed for attempts, postponed in waiting)
    await drained(owner)
    assert await owner.fetchval("SELECT count(*) FROM transfers WHERE status = 'PROCESSED'") == 43
    assert await owner.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_an_id_that_is_held_elsewhere_hardly_delays_the_others(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    async def sent(number: int) -> tuple[int, float]:
        started = time.monotonic()
        answer = await client.post(PATH, json=a_transaction(transaction_id=f"txn_{number}"))
        return answer.status_code, time.monotonic() - started

    async with owner.transaction():
        await owner.execute(
            """INSERT INTO transfers (transaction_id, id, source, destination, currency, amount)
               VALUES ('txn_50', gen_random_uuid(), 'a', 'b', 'USD', 1)"""
        )
        told = await asyncio.gather(*(sent(number) for number in range(100)))
        assert told[50][0] == 503
        others = told[:50] + told[51:]
        assert {status for status, _ in others} == {202}
        # Seven halvings of 50 ms, and 250 ms once it is alone.
        assert max(seconds for _, seconds in others) < 1.5
        await owner.execute("DELETE FROM transfers WHERE transaction_id = 'txn_50'")
    assert (await sent(50))[0] == 202
