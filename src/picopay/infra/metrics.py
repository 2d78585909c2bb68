"""Every metric of the system, and the page that shows them.

With several server processes prometheus-client shares counters through files in
`PROMETHEUS_MULTIPROC_DIR`, which is set before this module is first imported.
No metric has a user, a key or a URL as its label.
"""

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from picopay.infra.settings import metrics_folder

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
    "charge_queue_depth", "Charges waiting for a batch.", multiprocess_mode="livesum"
)
side_lane_charges = Counter(
    "charge_side_lane_total", "Charges that left the main lane: their payer was locked elsewhere."
)
batches_isolated = Counter(
    "charge_batches_isolated_total", "Batches split because one item could not be processed."
)
callers_gone = Counter(
    "charge_callers_gone_total", "Charges dropped, uncharged: the caller left before the batch."
)
commits_in_doubt = Counter(
    "database_commits_in_doubt_total", "Commits whose answer was lost and had to be looked up."
)
transactions_retried = Counter(
    "database_transactions_retried_total",
    "Transactions run again after a deadlock, a serialization failure or a lost connection.",
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
keys_rejected = Counter("api_keys_rejected_total", "Requests refused for their API key.")
http_requests = Counter("http_requests_total", "Answered requests.", ["method", "status"])


def page() -> tuple[bytes, str]:
    """The metrics of all processes in Prometheus' text format, with its content type."""
    registry = REGISTRY
    if metrics_folder() is not None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    return generate_latest(registry), CONTENT_TYPE_LATEST
