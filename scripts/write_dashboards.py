"""Write deploy/grafana/dashboards/*.json: what is shown of which metrics, and where.

A tidy test fails when they are out of date, or leave a metric out; `make docs` runs this.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards"
PANELS_A_ROW: Final = 3
WIDTH, HEIGHT = 24 // PANELS_A_ROW, 8
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
# Exported, and shown nowhere, for the reason given.
NOT_SHOWN: Final = {
    "ledger_check_seconds": "one figure an hour; look it up when checks take long",
}


class Panel(NamedTuple):
    """A graph of (legend, PromQL) pairs; with `now` the figures of this moment instead."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    now: bool = False


def rate(counter: str, by: str | None = None, times: str = "") -> str:
    summed = f"sum by ({by}) " if by else "sum"
    return f"{summed}(rate({counter}[$__rate_interval])){times}"


def quantiles(histogram: str, *by: str) -> list[tuple[str, str]]:
    """p50 and p99; `by` are labels that tell its parts."""
    labels = ", ".join(("le", *by))
    legend = "".join(f" {{{{{label}}}}}" for label in by)
    buckets = f"sum by ({labels}) (rate({histogram}_bucket[$__rate_interval]))"
    return [
        (f"p{percent}{legend}", f"histogram_quantile({percent / 100}, {buckets})")
        for percent in (50, 99)
    ]


def mean(histogram: str) -> str:
    return f"{rate(f'{histogram}_sum')} / {rate(f'{histogram}_count')}"


MONEY: Final = [
    Panel(
        "Drifts of the ledger: anything but 0 is an incident",
        "none",
        [("{{invariant}}", "max by (invariant) (ledger_drift)")],
        now=True,
    ),
    Panel(
        "Since the last check of the ledger",
        "s",
        [("", "time() - max(ledger_checked_timestamp_seconds)")],
        now=True,
    ),
    Panel("Dead letters open", "none", [("", "max(dead_letters_open)")], now=True),
    Panel(
        "Charges by how they were answered",
        "reqps",
        [("{{status}}", rate("charge_requests_total", "status"))],
    ),
    Panel("Charges: latency", "s", quantiles("charge_request_latency_seconds")),
    Panel(
        "Refunds by how they were answered",
        "reqps",
        [("{{outcome}}", rate("refunds_total", "outcome"))],
    ),
    Panel(
        "Orders",
        "reqps",
        [
            ("placed", rate("orders_total")),
            ("paid", rate("orders_paid_total")),
            ("canceled", rate("orders_canceled_total")),
        ],
    ),
    Panel(
        "Money given back for orders",
        "ops",
        [("{{outcome}}", rate("order_refunds_total", "outcome"))],
    ),
    Panel(
        "What providers said that changed nothing",
        "ops",
        [("{{why}}", rate("payments_ignored_total", "why"))],
    ),
    Panel(
        "Transaction webhooks",
        "reqps",
        [("{{outcome}}", rate("transfers_received_total", "outcome"))],
    ),
    Panel(
        "COMMITs without an answer, looked up",
        "ops",
        [("", rate("database_commits_in_doubt_total"))],
    ),
]
EVENTS: Final = [
    Panel(
        "How long the oldest due event has waited", "s", [("", "max(outbox_oldest_due_seconds)")]
    ),
    Panel(
        "Events",
        "none",
        [
            ("not done", "max(outbox_pending)"),
            ("due", "max(outbox_due)"),
            ("waiting for an elder", "max(outbox_blocked)"),
        ],
    ),
    Panel("From due to done", "s", quantiles("outbox_end_to_end_seconds")),
    Panel(
        "Attempts",
        "ops",
        [("{{consumer}} {{outcome}}", rate("outbox_attempts_total", "consumer, outcome"))],
    ),
    Panel(
        "Events given up by workers that show metrics",
        "ops",
        [("{{reason}}", rate("dead_letters_total", "reason"))],
    ),
    Panel("Leases lost", "ops", [("", rate("outbox_leases_lost_total"))]),
    Panel("Attempts and chores that failed", "ops", [("", rate("worker_errors_total"))]),
    Panel(
        "Webhooks refused for their signature",
        "ops",
        [("{{reason}}", rate("signatures_rejected_total", "reason"))],
    ),
]
_INSTANCE: Final = "{{job}} {{instance}}"
MACHINE: Final = [
    Panel("PostgreSQL answers", "none", [(_INSTANCE, "database_up")], now=True),
    Panel("Redis is left alone", "none", [(_INSTANCE, "replay_cache_breaker_open")], now=True),
    Panel("Targets up", "none", [(_INSTANCE, 'up{job=~"picopay-.*"}')], now=True),
    Panel("Answers", "reqps", [("{{status}}", rate("http_requests_total", "status"))]),
    Panel(
        "Requests refused at the door",
        "reqps",
        [
            ("API key", rate("api_keys_rejected_total")),
            ("admin secret", rate("admin_secrets_rejected_total")),
            ("limit {{rule}}", rate('limiter_decisions_total{result="limited"}', "rule")),
            ("limits decided in memory alone", rate("limiter_fallback_total")),
        ],
    ),
    Panel(
        "Replay cache",
        "ops",
        [("{{result}}", rate("replay_cache_lookups_total", "result"))],
    ),
    Panel(
        "Charges that wait",
        "none",
        [("waiting", "sum(charge_queue_depth)"), ("limit", "sum(charge_queue_limit)")],
    ),
    Panel("Charges in a batch", "none", [("mean", mean("charge_batch_size"))]),
    Panel("Batches: from begin to commit", "s", quantiles("charge_batch_seconds")),
    Panel(
        "Charges that were held up",
        "ops",
        [
            ("refused at the door", rate("requests_shed_total")),
            ("account locked elsewhere", rate("charge_set_aside_total")),
            ("batch taken apart", rate("charge_batches_isolated_total")),
            ("caller left", rate("charge_callers_gone_total")),
        ],
    ),
    Panel(
        "Database connections in use",
        "none",
        [
            ("{{pool}}", "sum by (pool) (database_connections_in_use)"),
            ("{{pool}} at most", "sum by (pool) (database_connections_max)"),
        ],
    ),
    Panel("Waited for a connection", "s", quantiles("database_connection_wait_seconds", "pool")),
    Panel("Transactions run again", "ops", [("", rate("database_transactions_retried_total"))]),
    Panel(
        "Processor time",
        "percentunit",
        [(_INSTANCE, 'rate(process_cpu_seconds_total{job=~"picopay-.*"}[$__rate_interval])')],
    ),
    Panel("Memory", "bytes", [(_INSTANCE, 'process_resident_memory_bytes{job=~"picopay-.*"}')]),
    Panel("Open files", "none", [(_INSTANCE, 'process_open_fds{job=~"picopay-.*"}')]),
]
DASHBOARDS: Final = {
    "money": ("PicoPay: money", MONEY),
    "events": ("PicoPay: events", EVENTS),
    "machine-room": ("PicoPay: machine room", MACHINE),
}


def queries() -> Iterator[str]:
    """Every query, with Grafana's interval made one that Prometheus reads."""
    for _, panels in DASHBOARDS.values():
        for panel in panels:
            for _, query in panel.queries:
                yield query.replace("$__rate_interval", "5m")


def _dashboard(name: str, title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    return {
        "uid": f"picopay-{name}",
        "title": title,
        "tags": ["picopay"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {"type": "dashboards", "tags": ["picopay"], "title": "PicoPay", "keepTime": True}
        ],
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"}
            ]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, PANELS_A_ROW)
    return {
        "id": number + 1,
        "type": "stat" if panel.now else "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
            }
            for n, (legend, query) in enumerate(panel.queries)
        ],
    }


def pages() -> dict[Path, str]:
    return {
        FOLDER / f"{name}.json": json.dumps(_dashboard(name, *shown), indent=2) + "\n"
        for name, shown in DASHBOARDS.items()
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path)
