"""The fake payment provider over HTTP, its callbacks received by a real server."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest
from tests.api.steps import keyed, problem
from tests.conftest import Stores, serving, settings_of
from tests.integration.outbox.workers import drained
from tests.receivers import Receiver, receiving

from picopay.infra.settings import Settings

PATH = "/_fake_payments"
SECRET, OLD_SECRET = "whsec_new-and-long-enough", "whsec_old-and-long-enough"


def a_payment(**changes: object) -> dict[str, object]:
    return {"order_id": "order-1", "amount": 19.99} | changes


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving(SECRET) as receiver:
        yield receiver


@pytest.fixture
def provider(settings: Settings, receiver: Receiver) -> Settings:
    """Settings of a provider that always succeeds, at once, and calls the receiver back."""
    changed = {
        "fake_payment_enabled": True,
        "fake_payment_success_rate": 1.0,
        "fake_payment_delay_seconds": 0.0,
        "payment_webhook_secret": f"{SECRET}, {OLD_SECRET}",
        "picopay_url": receiver.url,
        "outbox_retry_base_delay_seconds": 0.05,
        "picopay_worker": True,
    }
    return settings.model_copy(update=changed)


@pytest.fixture
async def client(provider: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(provider) as client:
        del client.headers["X-API-Key"]  # none is asked for
        yield client


@pytest.fixture(scope="module")
async def standing_provider(stores: Stores) -> AsyncIterator[httpx2.AsyncClient]:
    changed = {
        "fake_payment_enabled": True,
        "fake_payment_success_rate": 1.0,
        "payment_webhook_secret": SECRET,
    }
    async with serving(settings_of(stores), **changed) as client:
        del client.headers["X-API-Key"]
        yield client


@pytest.fixture
def asked(standing_provider: httpx2.AsyncClient, clean: Stores) -> httpx2.AsyncClient:
    """Of a provider that is not started anew: for what leads to no callback."""
    return standing_provider


async def made(client: httpx2.AsyncClient, **changes: object) -> str:
    """The id of a payment just made."""
    answer = await client.post(PATH, json=a_payment(**changes))
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["payment_id", "status"]
    assert answer.json()["status"] == "pending"
    return answer.json()["payment_id"]


async def shown(client: httpx2.AsyncClient, payment_id: str) -> dict[str, Any]:
    answer = await client.get(f"{PATH}/{payment_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def until(owner: asyncpg.Connection, query: str) -> None:
    """Until it is true."""
    give_up_at = time.monotonic() + 10
    while not await owner.fetchval(query):
        assert time.monotonic() < give_up_at, query
        await asyncio.sleep(0.01)


async def test_a_payment_is_accepted_settled_and_told_with_a_signature_of_the_first_secret(
    client: httpx2.AsyncClient, receiver: Receiver, owner: asyncpg.Connection
) -> None:
    payment_id = await made(client)
    await drained(owner)
    (call,) = receiver.received
    assert call.told == {"payment_id": payment_id, "order_id": "order-1", "status": "success"}
    assert (await shown(client, payment_id))["status"] == "success"


async def test_before_it_settles_a_payment_is_pending_whatever_has_been_decided(
    client: httpx2.AsyncClient, receiver: Receiver
) -> None:
    payment_id = await made(client, delay_seconds=60, outcome="failed", currency="KWD")
    known = await shown(client, payment_id)
    times = [datetime.fromisoformat(known.pop(name)) for name in ("created_at", "settles_at")]
    assert times[1] - times[0] == timedelta(seconds=60)
    assert known == {
        "payment_id": payment_id,
        "order_id": "order-1",
        "amount": 19.99,
        "currency": "KWD",
        "status": "pending",
        "callback_url": None,
        "outcome": "failed",
        "delay_seconds": 60.0,
        "duplicates": 1,
        "reorder_seconds": 0.0,
        "silence_seconds": 0.0,
        "lose": False,
        "conflicting": False,
        "refunded_at": None,
    }
    assert receiver.received == []


async def test_a_callback_does_not_come_before_its_delay(
    client: httpx2.AsyncClient, receiver: Receiver
) -> None:
    started = time.monotonic()
    await made(client, delay_seconds=0.4)
    await receiver.has(1)
    assert 0.4 <= receiver.received[0].at - started < 2


async def test_the_same_key_makes_one_payment_however_many_ask_at_once(
    client: httpx2.AsyncClient, receiver: Receiver, owner: asyncpg.Connection
) -> None:
    headers = keyed("order-1/1")
    answers = await asyncio.gather(
        *(client.post(PATH, json=a_payment(), headers=headers) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert Counter("idempotent-replayed" in a.headers for a in answers) == {True: 19, False: 1}
    await drained(owner)
    assert await owner.fetchval("SELECT count(*) FROM fake_payments") == 1
    assert len(receiver.received) == 1


async def test_a_repeated_key_changes_neither_the_end_nor_what_is_told(
    client: httpx2.AsyncClient, receiver: Receiver, owner: asyncpg.Connection
) -> None:
    headers = keyed()
    for knobs in ({"outcome": "failed"}, {"outcome": "success", "duplicates": 5}, {}):
        assert (
            await client.post(PATH, json=a_payment(**knobs), headers=headers)
        ).status_code == 200
    await drained(owner)
    assert [call.told["status"] for call in receiver.received] == ["failed"]


async def test_without_a_key_every_request_is_a_payment_of_its_own(
    client: httpx2.AsyncClient,
) -> None:
    assert await made(client) != await made(client)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"order_id": "x"}, "order_id"),
        ({"amount": 20}, "amount"),
        ({"currency": "EUR"}, "currency"),
        ({"callback_url": "http://127.0.0.1:9/"}, "callback_url"),
    ],
)
async def test_a_key_for_another_payment_is_refused(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, change: dict[str, Any], field: str
) -> None:
    headers = keyed()
    await client.post(PATH, json=a_payment(), headers=headers)
    again = await client.post(PATH, json=a_payment(**change), headers=headers)
    assert problem(again, 422, "idempotency-key-reused")["mismatched_fields"] == [field]
    assert await owner.fetchval("SELECT count(*) FROM fake_payments") == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ü"])
async def test_a_key_that_is_none_is_refused(asked: httpx2.AsyncClient, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode())]
    problem(
        await asked.post(PATH, json=a_payment(), headers=headers), 400, "idempotency-key-invalid"
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *[({"order_id": each}, "order_id") for each in ("", "a b", "a\0b", "x" * 151, 7, None)],
        *[({"amount": each}, "amount") for each in (0, -1, "0.001", None, True, 1e30)],
        *[({"currency": each}, "currency") for each in ("XXX", "usd", None)],
        *[({"outcome": each}, "outcome") for each in ("won", "", True)],
        *[({"delay_seconds": each}, "delay_seconds") for each in (-1, 86_401, "soon", True)],
        *[
            ({"delay_seconds": each}, "delay_seconds")
            for each in (10**400, "1e999", "nan", {"a": 1})
        ],
        *[({"duplicates": each}, "duplicates") for each in (0, 21, 1.5, "2", True, 10**30)],
        *[({"reorder_seconds": each}, "reorder_seconds") for each in (-0.1, 3601)],
        *[({"silence_seconds": each}, "silence_seconds") for each in (-1, 61)],
        *[({"lose": each}, "lose") for each in (1, "true", 0.0)],
        *[({"conflicting": each}, "conflicting") for each in (1, "no")],
        *[
            ({"callback_url": each}, "callback_url")
            for each in (
                *("", "/relative", "ftp://h/", "http://", "http:///x", "http://u:p@h/", "//h/"),
                *("http://h/#f", "http://[::1", "http://h:99999/", "http://h/ x", "http://h/\n"),
                *("http://hö/", "file:///etc/passwd", "http://h/" + "x" * 2000, 7),
            )
        ],
    ],
)
async def test_what_is_malformed_or_out_of_range_is_told_and_not_kept(
    asked: httpx2.AsyncClient, owner: asyncpg.Connection, change: dict[str, Any], field: str
) -> None:
    body = json.dumps(a_payment(**change))
    told = problem(await asked.post(PATH, content=body), 422, "validation")
    assert [error["field"] for error in told["errors"]] == [field]
    assert await owner.fetchval("SELECT count(*) FROM fake_payments") == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"null"])
async def test_what_is_no_object_is_told(asked: httpx2.AsyncClient, body: bytes) -> None:
    problem(await asked.post(PATH, content=body), 422, "validation")


@pytest.mark.parametrize(
    "payment_id", ["0197c5a4-6b1e-7c3a-9d55-0a4be3a1c002", "nope", "%00", "x" * 500]
)
async def test_an_unknown_payment_is_neither_shown_nor_refunded(
    asked: httpx2.AsyncClient, payment_id: str
) -> None:
    problem(await asked.get(f"{PATH}/{payment_id}"), 404, "fake-payment-not-found")
    problem(await asked.post(f"{PATH}/{payment_id}/refunds"), 404, "fake-payment-not-found")


async def test_a_success_is_refunded_once_however_often_that_is_asked(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    payment_id = await made(client)
    answers = await asyncio.gather(
        *(client.post(f"{PATH}/{payment_id}/refunds") for _ in range(10))
    )
    expected = {"payment_id": payment_id, "status": "refunded"}
    assert [(a.status_code, a.json()) for a in answers] == [(200, expected)] * 10
    known = await shown(client, payment_id)
    assert known["status"] == "refunded"
    await client.post(f"{PATH}/{payment_id}/refunds")
    assert await shown(client, payment_id) == known
    assert capsys.readouterr().out.count("fake_payment.refunded") == 1


@pytest.mark.parametrize("knobs", [{"outcome": "failed"}, {"delay_seconds": 60}])
async def test_what_has_not_succeeded_is_not_refunded(
    client: httpx2.AsyncClient, knobs: dict[str, Any]
) -> None:
    payment_id = await made(client, **knobs)
    refused = await client.post(f"{PATH}/{payment_id}/refunds")
    problem(refused, 409, "fake-payment-not-refundable")
    assert (await shown(client, payment_id))["refunded_at"] is None


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("SET refunded_at = settles_at, outcome = 'failed'", "only_success_is_refunded"),
        ("SET refunded_at = settles_at - interval '1 s'", "only_settled_is_refunded"),
        ("SET outcome = 'maybe'", "outcome_known"),
        ("SET forced = 'failed'", "forced_is_outcome"),
        ("SET amount = 0", "amount_in_range"),
        ("SET delay_seconds = 'NaN'", "delay_in_range"),
        ("SET duplicates = 21", "duplicates_in_range"),
        ("SET reorder_seconds = -1", "reorder_in_range"),
        ("SET silence_seconds = 61", "silence_in_range"),
        ("SET settles_at = created_at - interval '1 s'", "settles_after_creation"),
    ],
)
async def test_the_database_refuses_it_too(
    asked: httpx2.AsyncClient, owner: asyncpg.Connection, statement: str, constraint: str
) -> None:
    await made(asked)
    with pytest.raises(asyncpg.CheckViolationError, match=f"fake_payments_{constraint}"):
        await owner.execute(f"UPDATE fake_payments {statement}")


async def test_the_success_rate_decides_unless_the_outcome_is_forced(
    provider: Settings, receiver: Receiver, owner: asyncpg.Connection
) -> None:
    async with serving(provider, fake_payment_success_rate=0.0) as client:
        failed, forced = await made(client), await made(client, outcome="success")
        await drained(owner)
        assert (await shown(client, failed))["status"] == "failed"
        assert (await shown(client, forced))["status"] == "success"
    assert receiver.statuses(failed) == {"failed": 1}
    assert receiver.statuses(forced) == {"success": 1}


async def test_duplicates_are_told_so_often_byte_by_byte(
    client: httpx2.AsyncClient, receiver: Receiver, owner: asyncpg.Connection
) -> None:
    await made(client, duplicates=5)
    await drained(owner)
    assert len(receiver.received) == 5
    assert len({call.body for call in receiver.received}) == 1


async def test_conflicting_callbacks_tell_both_ends_and_asking_tells_the_true_one(
    client: httpx2.AsyncClient, receiver: Receiver, owner: asyncpg.Connection
) -> None:
    payment_id = await made(client, conflicting=True, duplicates=2, outcome="failed")
    await drained(owner)
    assert receiver.statuses(payment_id) == {"success": 2, "failed": 2}
    assert (await shown(client, payment_id))["status"] == "failed"


async def test_a_lost_callback_is_never_told_but_asking_tells(
    client: httpx2.AsyncClient, receiver: Receiver, owner: asyncpg.Connection
) -> None:
    payment_id = await made(client, lose=True)
    assert await owner.fetchval("SELECT count(*) FROM outbox_events") == 0
    assert (await shown(client, payment_id))["status"] == "success"
    assert receiver.received == []


async def test_reordered_callbacks_overtake_each_other(
    client: httpx2.AsyncClient, receiver: Receiver, owner: asyncpg.Connection
) -> None:
    """A second payment's callback, on time, comes before a first one's that is late by chance."""
    ids = [await made(client, reorder_seconds=1.0, order_id=f"o{n}") for n in range(12)]
    await drained(owner)
    told = [call.told["payment_id"] for call in receiver.received]
    assert sorted(told) == sorted(ids)
    assert told != ids  # one run in 479 million is in order


async def test_silence_keeps_the_payment_answers_late_and_not_at_all_when_repeated(
    client: httpx2.AsyncClient, receiver: Receiver
) -> None:
    headers = keyed()
    started = time.monotonic()
    first = asyncio.create_task(
        client.post(PATH, json=a_payment(silence_seconds=1), headers=headers)
    )
    await receiver.has(1)
    again = await client.post(PATH, json=a_payment(silence_seconds=1), headers=headers)
    assert time.monotonic() - started < 1
    assert not first.done()
    assert (await first).json() == again.json()
    assert time.monotonic() - started >= 1


async def test_the_settings_turn_the_knobs_of_every_payment_that_does_not_itself(
    provider: Settings, receiver: Receiver, owner: asyncpg.Connection
) -> None:
    turned = {
        "outcome": "failed",
        "delay_seconds": 0.1,
        "duplicates": 2,
        "reorder_seconds": 0.1,
        "silence_seconds": 0.2,
        "lose": False,
        "conflicting": True,
    }
    settings = {f"fake_payment_{name}": value for name, value in turned.items()}
    async with serving(provider, **settings) as client:
        theirs, own = await made(client), await made(client, duplicates=1, conflicting=False)
        assert turned.items() <= (await shown(client, theirs)).items()
        await drained(owner)
    assert receiver.statuses(theirs) == {"success": 2, "failed": 2}
    assert receiver.statuses(own) == {"failed": 1}


async def test_a_payment_may_name_its_own_receiver(
    client: httpx2.AsyncClient, receiver: Receiver, owner: asyncpg.Connection
) -> None:
    async with receiving(SECRET) as other:
        payment_id = await made(client, callback_url=f"{other.url}/elsewhere")
        await drained(owner)
        assert other.statuses(payment_id) == {"success": 1}
    assert receiver.received == []


@pytest.mark.parametrize("answer", [500, 404, 302, 401, None])
async def test_a_callback_that_is_not_answered_2xx_is_sent_again_until_it_is(
    client: httpx2.AsyncClient, receiver: Receiver, owner: asyncpg.Connection, answer: int | None
) -> None:
    receiver.answers = [answer, answer, 204]
    payment_id = await made(client)
    await drained(owner)
    assert receiver.statuses(payment_id) == {"success": 3}
    assert len({call.body for call in receiver.received}) == 1
    assert await owner.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_a_receiver_that_was_away_is_told_when_it_is_back(
    provider: Settings, receiver: Receiver, owner: asyncpg.Connection
) -> None:
    await receiver.stop()
    async with serving(provider, outbox_max_attempts=20) as client:
        payment_id = await made(client)
        await until(owner, "SELECT max(attempts) >= 2 FROM outbox_queue")
        await receiver.start()
        await drained(owner)
    assert receiver.statuses(payment_id) == {"success": 1}


async def test_a_receiver_that_never_takes_it_leaves_a_dead_letter_that_says_why(
    provider: Settings, receiver: Receiver, owner: asyncpg.Connection
) -> None:
    receiver.answers = [503] * 3
    async with serving(provider, outbox_max_attempts=3) as client:
        await made(client)
        await drained(owner)
    assert len(receiver.received) == 3
    error = await owner.fetchval("SELECT error FROM dead_letters WHERE reason = 'exhausted'")
    assert error == "CallbackRefused: the callback was answered 503"


async def test_a_receiver_that_hangs_does_not_hold_up_the_callbacks_of_others(
    client: httpx2.AsyncClient, receiver: Receiver
) -> None:
    async with receiving(SECRET) as other:
        receiver.hangs.clear()
        for _ in range(8):
            await made(client)
        await receiver.has(8)
        await made(client, callback_url=f"{other.url}/elsewhere")
        await other.has(1, seconds=2)
        receiver.hangs.set()


UNKNOWN = "0197c5a4-6b1e-7c3a-9d55-0a4be3a1c001"
OFF = [("POST", ""), ("GET", f"/{UNKNOWN}"), ("GET", "/nope"), ("POST", f"/{UNKNOWN}/refunds")]


@pytest.mark.parametrize(("method", "rest"), OFF)
async def test_while_it_is_off_nothing_is_there(
    settings: Settings, owner: asyncpg.Connection, method: str, rest: str
) -> None:
    async with serving(settings, fake_payment_enabled=False) as client:
        problem(await client.request(method, PATH + rest, json=a_payment()), 404, "not-found")
        problem(await client.request(method, PATH + rest, content=b"{"), 404, "not-found")
    assert await owner.fetchval("SELECT count(*) FROM fake_payments") == 0


async def test_neither_secrets_nor_a_callbacks_url_come_into_the_log(
    client: httpx2.AsyncClient,
    receiver: Receiver,
    owner: asyncpg.Connection,
    capsys: pytest.CaptureFixture[str],
) -> None:
    receiver.answers = [500] * 100
    await made(client, callback_url=f"{receiver.url}/elsewhere?token=hunter2")
    await until(owner, "SELECT count(*) = 1 FROM dead_letters")
    await receiver.stop()
    await made(client, callback_url=f"{receiver.url}/elsewhere?token=hunter2")
    await until(owner, "SELECT count(*) = 2 FROM dead_letters")
    await asyncio.sleep(0.1)
    said = capsys.readouterr().out
    assert "outbox.attempt_failed" in said
    assert "outbox.dead_letter" in said
    assert "Unreachable: POST 127.0.0.1" in said
    errors = await owner.fetch("SELECT error FROM dead_letters")
    for hidden in (SECRET, OLD_SECRET, "hunter2"):
        assert hidden not in said
        assert not any(hidden in row["error"] for row in errors)


async def test_the_request_id_of_the_creation_is_carried_to_its_callback(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await client.post(PATH, json=a_payment(), headers={"X-Request-ID": "from-outside"})
    await drained(owner)
    await asyncio.sleep(0.05)
    (line,) = [t for t in capsys.readouterr().out.splitlines() if "fake_payment.told" in t]
    assert "from-outside" in line


async def test_a_payment_has_one_name(client: httpx2.AsyncClient) -> None:
    payment_id = await made(client)
    assert (await client.get(f"{PATH}/{payment_id}")).status_code == 200
    for other in (payment_id.upper(), f"urn:uuid:{payment_id}", payment_id.replace("-", "")):
        assert (await client.get(f"{PATH}/{other}")).status_code == 404
        assert (await client.post(f"{PATH}/{other}/refunds")).status_code == 404
