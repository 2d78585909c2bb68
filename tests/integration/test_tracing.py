"""Traces, as a collector receives them: whole, and silent about what is nobody's business."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import asyncpg
import httpx2
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.api.steps import a_user
from tests.collectors import Collector, collecting, silent
from tests.conftest import Stores, serving
from tests.forks import Process
from tests.integration.outbox.workers import drained
from tests.processes import PICOPAY, free_port, spawn

from picopay.app import create_app
from picopay.infra import tracing
from picopay.infra.middleware import Edge
from picopay.infra.settings import Settings

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
RECEIVING = "POST /v1/webhooks/transactions"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
WEBHOOK = {
    "transaction_id": "txn_secretive",
    "source_account": "acc_hidden",
    "destination_account": "acc_unseen",
    "amount": 4321.09,
    "currency": "EUR",
}
# Besides these a span says nothing.
ATTRIBUTES = {
    "http.request.method",
    "http.route",
    "http.response.status_code",
    "picopay.batch.size",
    "picopay.event.type",
    "error.type",
}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@asynccontextmanager
async def tracing_to(
    url: str, settings: Settings, **changed: object
) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of an application that traces; when this ends, everything has been sent."""
    told = settings.model_copy(update={"otel_exporter_otlp_endpoint": url})
    tracing.start(told)
    try:
        async with serving(told, **changed) as client:
            yield client
    finally:
        tracing.stop()


def attributes(span: Span) -> dict[str, str | int]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def a_worker(database_url: str, endpoint: str, folder: Path) -> Process:
    environment = {
        "DATABASE_URL": database_url,
        "PAYMENT_WEBHOOK_SECRET": "one-of-our-own",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
    }
    return spawn([PICOPAY, "worker"], environment, folder / "worker.log")


async def test_a_trace_leads_from_the_webhook_through_batch_and_outbox_to_another_process(
    collector: Collector,
    settings: Settings,
    clean: Stores,
    owner: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    worker = a_worker(clean.database_url, collector.url, tmp_path)
    try:
        async with tracing_to(
            collector.url, settings, transaction_processing_delay_seconds=0
        ) as client:
            sent = await client.post("/v1/webhooks/transactions", json=WEBHOOK, headers=SAMPLED)
            assert sent.status_code == 202
            await drained(owner, seconds=60)
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0

    request = collector.one(RECEIVING)
    batch, handled = collector.one("webhooks batch"), collector.one("transfers process")
    assert {span.trace_id.hex() for span in (request, batch, handled)} == {TRACE}
    assert request.parent_span_id.hex() == CALLER
    assert batch.parent_span_id == handled.parent_span_id == request.span_id
    assert (request.kind, handled.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CONSUMER)
    assert attributes(request)["http.response.status_code"] == 202
    assert attributes(handled)["picopay.event.type"] == "transfer.received"
    kept = await owner.fetchval("SELECT request_id FROM outbox_events")
    assert kept == f"{sent.headers['x-request-id']} 00-{TRACE}-{request.span_id.hex()}-01"


async def test_a_charge_leads_to_the_batch_that_decided_it(
    collector: Collector, settings: Settings
) -> None:
    async with tracing_to(collector.url, settings) as client:
        await a_user(client)
        await asyncio.gather(*(a_charge(client) for _ in range(30)))

    requests = collector.named("POST /charge")
    batches = collector.named("charges batch")
    assert len(requests) == 30
    assert sum(int(attributes(batch)["picopay.batch.size"]) for batch in batches) == 30
    assert len(batches) < 30
    served = {batch.span_id: batch.parent_span_id for batch in batches}
    for request in requests:
        above = [batch for batch, first in served.items() if first == request.span_id]
        linked = [link.span_id for link in request.links]
        (batch_id,) = above + linked
        (batch,) = [each for each in batches if each.span_id == batch_id]
        if linked:
            assert request.span_id in {link.span_id for link in batch.links}
        else:
            assert batch.trace_id == request.trace_id
        assert batch.end_time_unix_nano <= request.end_time_unix_nano


async def a_charge(client: httpx2.AsyncClient, **headers: str) -> httpx2.Response:
    body = {"user_id": 1, "amount": 1, "currency": "USD"}
    answer = await client.post("/charge", json=body, headers=headers)
    assert answer.status_code == 200
    return answer


async def test_who_is_not_sampled_leaves_no_span_and_no_trace_in_events(
    collector: Collector, settings: Settings, owner: asyncpg.Connection
) -> None:
    unsampled = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
    async with tracing_to(collector.url, settings) as client:
        await a_user(client)
        await a_charge(client, **unsampled)
        await client.post("/v1/webhooks/transactions", json=WEBHOOK, headers=unsampled)
    assert TRACE not in {span.trace_id.hex() for span in collector.spans}
    assert "-00" in await owner.fetchval("SELECT request_id FROM outbox_events")


@pytest.mark.parametrize("broken", ["", "00-0-0-01", f"00-{'0' * 32}-{CALLER}-01", "\xff" * 55])
async def test_a_broken_traceparent_begins_a_trace_of_its_own(
    collector: Collector, settings: Settings, broken: str
) -> None:
    headers = {"traceparent": broken.encode("latin-1")}
    async with tracing_to(collector.url, settings) as client:
        answer = await client.get("/products", headers=headers)  # pyright: ignore[reportArgumentType] - bytes
        assert answer.status_code == 200
    assert not collector.one("GET /products").parent_span_id


async def test_nothing_that_is_nobodys_business_is_sent(
    collector: Collector, settings: Settings, owner: asyncpg.Connection
) -> None:
    key = "0198c0de-0000-7000-8000-0000feedbeef"
    named = {"Idempotency-Key": key, "X-Request-ID": "request-of-mine"}
    stated = SAMPLED | {"tracestate": "vendor=hush", "baggage": "user=somebody"}
    worker = {"picopay_worker": True, "transaction_processing_delay_seconds": 0}
    async with tracing_to(collector.url, settings, **worker) as client:
        await a_user(client, 987_654_321)
        body = {"user_id": 987_654_321, "amount": 12.34, "currency": "USD"}
        for amount in (12.34, 98765.43, "twelve"):
            await client.post("/charge", json=body | {"amount": amount}, headers=named | stated)
        await client.get("/v1/users/987654321")
        await client.get("/v1/secret-path?token=s3cret")
        await client.get("/products?q=wanted", headers={"User-Agent": "agent-of-mine"})
        await client.post("/v1/webhooks/transactions", json=WEBHOOK, headers=stated)
        order: dict[str, object] = {"user_email": "me@example.org", "items": []}
        await client.post("/orders", json=order, headers={"Idempotency-Key": "order-of-mine"})
        await drained(owner, seconds=30)

    assert len(collector.spans) > 8
    for span in collector.spans:
        assert set(attributes(span)) <= ATTRIBUTES
        assert not span.events
        assert not span.trace_state
        assert not span.status.message
    sent = b"".join(collector.received)
    said = {WEBHOOK["transaction_id"], WEBHOOK["source_account"], WEBHOOK["destination_account"]}
    for text in {
        *map(str, said),
        *(key, "request-of-mine", "order-of-mine", "agent-of-mine", "987654321", "987_654_321"),
        *("12.34", "1234", "98765", "4321", "twelve", "hush", "somebody", "s3cret"),
        *("secret-path", "wanted", "example.org", "test-key", "X-API-Key"),
    }:
        assert text.encode() not in sent, text
    routes = {attributes(span).get("http.route") for span in collector.spans}
    assert {"/charge", "/v1/users/{user_id}", "/products", "/orders", None} <= routes


async def test_what_fails_says_what_kind_of_failure_it_was(
    collector: Collector, settings: Settings, owner: asyncpg.Connection
) -> None:
    await owner.execute("ALTER TABLE transfers RENAME TO hidden")
    try:
        async with tracing_to(collector.url, settings) as client:
            answer = await client.post("/v1/webhooks/transactions", json=WEBHOOK)
            assert answer.status_code == 500
    finally:
        await owner.execute("ALTER TABLE hidden RENAME TO transfers")
    request, batch = collector.one(RECEIVING), collector.one("webhooks batch")
    assert attributes(batch)["error.type"] == "UndefinedTableError"
    assert batch.status.code == request.status.code == Status.STATUS_CODE_ERROR


async def test_a_log_line_names_its_trace(
    collector: Collector, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    async with tracing_to(collector.url, settings) as client:
        await a_user(client)
        await a_charge(client, **SAMPLED)
        await asyncio.sleep(0)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "charge.succeeded" in line]
    assert f'"trace_id":"{TRACE}"' in line


@pytest.mark.parametrize("state", ["down", "silent"])
async def test_a_collector_that_does_not_answer_delays_nothing(
    settings: Settings, state: str
) -> None:
    """It would be waited for 10 s each time."""
    with silent() as url:
        endpoint = url if state == "silent" else f"http://127.0.0.1:{free_port()}"
        async with asyncio.timeout(30):
            async with tracing_to(endpoint, settings) as client:
                await a_user(client)
                for _ in range(3):  # each more than is sent at a time
                    await asyncio.gather(*(a_charge(client) for _ in range(200)))
                    await asyncio.sleep(0.05)
                began = monotonic()
                tracing.stop()
                assert monotonic() - began < tracing.STOP_SECONDS_MAX + 2
    assert not tracing.is_on()


def test_without_a_collector_nothing_is_traced_and_nothing_to_trace_with_is_imported() -> None:
    """The SDK's metrics are: redis-py imports them wherever they are installed."""
    program = """
import sys
SENDERS = "opentelemetry.sdk.trace", "opentelemetry.exporter", "picopay.infra.otlp"
from picopay.infra import tracing
from picopay.infra.settings import Settings
from picopay.cli import serve, worker
tracing.start(Settings())
assert not tracing.is_on()
assert tracing.current() is None
assert tracing.origin("an id") == "an id"
assert not [name for name in sys.modules if name.startswith(SENDERS)]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


async def test_without_a_collector_no_request_passes_through_anything_more(
    settings: Settings,
) -> None:
    assert isinstance(create_app(settings).middleware_stack, Edge)
