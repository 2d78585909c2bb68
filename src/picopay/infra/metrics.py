"""Every metric of the system, and the page that shows them.

With several server processes prometheus-client shares counters through files in
`PROMETHEUS_MULTIPROC_DIR`, which is set before this module is first imported.
No metric has a user, a key or a URL as its label.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)
from prometheus_client.multiprocess import (
    MultiProcessCollector,
    mark_process_dead,  # pyright: ignore[reportUnknownVariableType] - untyped
)

from picopay.infra.environment import metrics_folder
from picopay.infra.processes import Processes, is_running

# When each series began: nothing needs it, and several processes together do not tell it at all.
disable_created_metrics()

LATENCY_BUCKETS_SECONDS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1),
    *(0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)

charge_requests = Counter(
    "charge_requests_total", "Charge requests by how they were answered.", ["status"]
)
charge_latency = Histogram(
    "charge_request_latency_seconds",
    "From the first byte of a POST /charge to its answer.",
    buckets=LATENCY_BUCKETS_SECONDS,
)
# Children are looked up once: a label look-up costs as much as the increment itself.
charge_succeeded = charge_requests.labels("success")
charge_replayed = charge_requests.labels("idempotent_hit")
charge_insufficient = charge_requests.labels("insufficient_balance")
charge_failed = charge_requests.labels("failed")

batch_size = Histogram(
    "charge_batch_size",
    "Charges decided in one database transaction.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
batch_seconds = Histogram(
    "charge_batch_seconds",
    "One batch, from its begin to its commit.",
    buckets=LATENCY_BUCKETS_SECONDS,
)
queue_depth = Gauge(
    "charge_queue_depth", "Charges accepted and not yet decided.", multiprocess_mode="livesum"
)
queue_limit = Gauge(
    "charge_queue_limit",
    "Charges that may wait: beyond it they are refused.",
    multiprocess_mode="livesum",
)
set_aside = Counter(
    "charge_set_aside_total", "Charges that waited: their payer or merchant was locked elsewhere."
)
batches_isolated = Counter(
    "charge_batches_isolated_total", "Batches split because one item could not be processed."
)
callers_gone = Counter(
    "charge_callers_gone_total", "Charges dropped, uncharged: the caller left before the batch."
)
refunds = Counter(
    "refunds_total",
    "Refund requests by how they were answered: succeeded, replayed, refused, failed.",
    ["outcome"],
)
commits_in_doubt = Counter(
    "database_commits_in_doubt_total", "Commits whose answer was lost and had to be looked up."
)
transactions_retried = Counter(
    "database_transactions_retried_total",
    "Transactions run again after a deadlock, a serialization failure or a lost connection.",
)
database_up = Gauge(
    "database_up",
    "1 while PostgreSQL answers this process, 0 while it does not; asked every few seconds.",
    multiprocess_mode="livemin",
)
connections_in_use = Gauge(
    "database_connections_in_use",
    "Connections in use, sampled every few seconds, by what their pool is for.",
    ["pool"],
    multiprocess_mode="livesum",
)
connections_max = Gauge(
    "database_connections_max",
    "Connections that the pool may open.",
    ["pool"],
    multiprocess_mode="livesum",
)
connection_waits = Histogram(
    "database_connection_wait_seconds",
    "How long was waited for a connection of a pool.",
    ["pool"],
    buckets=(0.0005, 0.002, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
)
ledger_drift = Gauge(
    "ledger_drift",
    "Drifts that the last check of the ledger named, by invariant: anything but 0 is an incident.",
    ["invariant"],
    multiprocess_mode="livemax",
)
ledger_checked = Gauge(
    "ledger_checked_timestamp_seconds",
    "When the ledger was last checked; 0 where another process sees to it.",
    multiprocess_mode="livemax",
)
ledger_check_seconds = Gauge(
    "ledger_check_seconds",
    "How long the last check of the ledger took.",
    multiprocess_mode="livemax",
)
cache_lookups = Counter("replay_cache_lookups_total", "Redis replay look-ups.", ["result"])
cache_hits = cache_lookups.labels("hit")
cache_misses = cache_lookups.labels("miss")
cache_unavailable = cache_lookups.labels("unavailable")
cache_breaker_open = Gauge(
    "replay_cache_breaker_open",
    "1 while Redis is left alone after a failure.",
    multiprocess_mode="livemax",
)
outbox_attempts = Counter(
    "outbox_attempts_total",
    "Attempts to handle an event: done, retried, deferred or buried.",
    ["consumer", "outcome"],
)
outbox_end_to_end = Histogram(
    "outbox_end_to_end_seconds",
    "From when an event was due to when it was done.",
    buckets=(*LATENCY_BUCKETS_SECONDS, 30.0, 60.0, 300.0),
)
outbox_pending = Gauge(
    "outbox_pending",
    "Events not done yet, sampled by each process that shows metrics.",
    multiprocess_mode="mostrecent",
)
outbox_due = Gauge(
    "outbox_due", "Events that are due and not leased.", multiprocess_mode="mostrecent"
)
outbox_blocked = Gauge(
    "outbox_blocked", "Ordered events that wait for an elder.", multiprocess_mode="mostrecent"
)
outbox_oldest_due = Gauge(
    "outbox_oldest_due_seconds",
    "For how long the oldest due event has waited: the one to alert on.",
    multiprocess_mode="mostrecent",
)
leases_lost = Counter(
    "outbox_leases_lost_total", "Events whose lease ended before their handler did."
)
dead_letters = Counter("dead_letters_total", "Events given up, by reason.", ["reason"])
dead_letters_open = Gauge(
    "dead_letters_open", "Dead letters that nobody has resolved.", multiprocess_mode="mostrecent"
)
worker_errors = Counter("worker_errors_total", "Attempts and chores of workers that failed.")
transfers_received = Counter(
    "transfers_received_total",
    "Transaction webhooks: accepted, repeated, conflicting.",
    ["outcome"],
)
# There from the start: an increase is seen only of what was there before.
for _outcome in ("accepted", "repeated", "conflicting"):
    transfers_received.labels(_outcome)
orders = Counter("orders_total", "Orders placed.")
orders_paid = Counter("orders_paid_total", "Orders paid.")
orders_canceled = Counter("orders_canceled_total", "Orders canceled, by whom or what ever.")
payments_ignored = Counter(
    "payments_ignored_total", "What providers said that changed nothing, by why.", ["why"]
)
order_refunds = Counter(
    "order_refunds_total",
    "Money that came for orders it cannot pay: requested back, and returned.",
    ["outcome"],
)
signatures_rejected = Counter(
    "signatures_rejected_total", "Webhooks refused for their signature, by reason.", ["reason"]
)
keys_rejected = Counter("api_keys_rejected_total", "Requests refused for their API key.")
limiter_decisions = Counter(
    "limiter_decisions_total",
    "Rate limits: every rule of an allowed request, the reached one of a limited request.",
    ["rule", "result"],
)
limiter_fallback = Counter(
    "limiter_fallback_total", "Rate limits decided in memory alone, because Redis was not there."
)
admin_secrets_rejected = Counter(
    "admin_secrets_rejected_total", "Requests refused for their admin secret."
)
requests_shed = Counter(
    "requests_shed_total",
    "Requests refused at the door, before the application was asked: a full queue.",
)
http_requests = Counter("http_requests_total", "Answered requests.", ["method", "status"])


def serve(host: str, port: int, is_alive: Callable[[], bool]) -> None:
    """The same page from a thread of its own, for a process without a server. Raises `OSError`.

    The thread lives on whatever happens to the others: so it answers 503 when they are not alive.
    """
    server, _ = start_http_server(port, host)
    shown = server.get_app()
    assert shown is not None

    def page(environ: Any, respond: Any) -> Any:  # noqa: ANN401 - as WSGI has it
        if is_alive():
            return shown(environ, respond)
        respond("503 Service Unavailable", [])
        return [b"the worker is stuck\n"]

    server.set_app(page)


def page() -> tuple[bytes, str]:
    """The metrics of all processes in Prometheus' text format, with its content type."""
    registry = REGISTRY
    if (folder := metrics_folder()) is not None:
        registry = CollectorRegistry()
        registry.register(Processes(_living(folder)))
        MultiProcessCollector(registry)
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _living(folder: Path) -> set[int]:
    """The processes that share the folder. What one that was killed was at counts no longer."""
    pids = {int(path.stem.rpartition("_")[2]) for path in folder.glob("*_*.db")}
    dead = {pid for pid in pids if not is_running(pid)}
    for pid in dead:
        with suppress(FileNotFoundError):  # another process was asked at the same time
            mark_process_dead(pid, str(folder))
    return pids - dead
