"""What is exported, and what queries of alerts and dashboards ask for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import promql_parser
import yaml
from prometheus_client.metrics import MetricWrapperBase
from promql_parser import AggModifierType, AggregateExpr, Expr, VectorSelector

from picopay.infra import metrics

PROMETHEUS = Path(__file__).parents[1] / "deploy" / "prometheus"
# Prometheus' own, and those of whatever process prometheus-client runs in.
FOREIGN = {
    "up",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
}
OF_TARGETS = {"job", "instance"}
LE = {"_bucket": {"le"}}
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def _exported() -> Iterator[tuple[str, str, set[str]]]:
    """(metric, name of its series, labels)."""
    for metric in vars(metrics).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        (family,) = metric.describe()
        for suffix in _SUFFIXES[family.type]:
            names = cast("tuple[str, ...]", metric._labelnames)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            yield family.name, family.name + suffix, {*names} | LE.get(suffix, set())


_OF_FOREIGN: dict[str, set[str]] = {name: set() for name in FOREIGN}
LABELS = _OF_FOREIGN | {series: labels for _, series, labels in _exported()}
METRIC = {series: metric for metric, series, _ in _exported()}


def _groups() -> list[dict[str, Any]]:
    return yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]


ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in _groups() for rule in group["rules"]
}


def selectors(expression: Expr) -> list[VectorSelector]:
    found: list[VectorSelector] = []

    def visit(node: Expr) -> None:
        if isinstance(node, VectorSelector):
            found.append(node)

    promql_parser.walk(expression, visit)
    return found


def unknown(query: str) -> set[str]:
    """Series and labels of the query that are not exported."""
    wrong: set[str] = set()

    def visit(node: Expr) -> None:
        if isinstance(node, AggregateExpr) and node.modifier is not None:
            assert node.modifier.type == AggModifierType.By, "say which labels are kept"
            known = [_labels(selector) for selector in selectors(node.expr)]
            wrong.update(set(node.modifier.labels) - set[str].intersection(*known))

    expression = promql_parser.parse(query)
    promql_parser.walk(expression, visit)
    for selector in selectors(expression):
        if selector.name not in LABELS:
            wrong.add(str(selector.name))
        wrong.update({matcher.name for matcher in selector.matchers.matchers} - _labels(selector))
    return wrong


def asked_for_by_alerts() -> set[str]:
    """The series that a target must show, so that the alerts can fire."""
    expressions = [promql_parser.parse(rule["expr"]) for rule in ALERTS.values()]
    names = {str(selector.name) for each in expressions for selector in selectors(each)}
    return names - {"up"}


def _labels(selector: VectorSelector) -> set[str]:
    return LABELS.get(str(selector.name), set()) | OF_TARGETS
