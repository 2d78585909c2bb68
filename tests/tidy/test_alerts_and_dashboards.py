"""Alerts and dashboards speak of what is exported, and all that is exported is shown somewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import promql_parser
import pytest
import yaml
from tests.promql import ALERTS, METRIC, PROMETHEUS, selectors, unknown

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "scripts" / "check_alerts.py"
GUIDE = "docs/guides/alerts.md"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "dashboards", ROOT / "scripts/write_dashboards.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DASHBOARDS = _generator()


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("sum(rate(charge_requests[5m]))", {"charge_requests"}),
        ("sum by (outcome) (rate(charge_requests_total[5m]))", {"outcome"}),
        ('rate(charge_requests_total{user="1"}[5m])', {"user"}),
        ("sum by (le) (charge_batch_size_count)", {"le"}),
        ("max(ledger_drift) and sum(ledger_drift_total) / 2 > 1", {"ledger_drift_total"}),
        ('sum by (le) (rate(charge_batch_size_bucket[1h])) > bool up{job="x"}', set[str]()),
    ],
)
def test_what_is_not_exported_is_found(query: str, wrong: set[str]) -> None:
    assert unknown(query) == wrong


@pytest.mark.parametrize("query", [*DASHBOARDS.queries(), *(r["expr"] for r in ALERTS.values())])
def test_every_query_is_of_exported_metrics_and_labels(query: str) -> None:
    assert selectors(promql_parser.parse(query))
    assert not unknown(query)


def test_every_metric_is_shown_or_said_not_to_be() -> None:
    queries: list[str] = [*DASHBOARDS.queries()]
    found = [each for query in queries for each in selectors(promql_parser.parse(query))]
    shown = {METRIC[str(selector.name)] for selector in found if selector.name in METRIC}
    hidden: set[str] = {*DASHBOARDS.NOT_SHOWN}
    assert shown | hidden == set(METRIC.values())
    assert not shown & hidden


def test_the_dashboards_are_current() -> None:
    pages: dict[Path, str] = DASHBOARDS.pages()
    assert set(DASHBOARDS.FOLDER.glob("*")) == set(pages)
    for path, text in pages.items():
        assert path.read_text() == text, f"{path.name} is out of date: run make docs"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert rule["annotations"]["runbook_url"] == f"{GUIDE}#{name.lower()}"


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    sections = re.findall(r"^## (.*)$", (ROOT / GUIDE).read_text(), re.MULTILINE)
    assert sections == list(ALERTS)


def test_every_alert_is_tried_firing_and_quiet() -> None:
    cases = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    tried = [
        (case["name"], tried["alertname"], bool(tried["exp_alerts"]))
        for case in cases
        for tried in case["alert_rule_test"]
    ]
    assert sorted(tried) == sorted(
        [(f"{name} fires", name, True) for name in ALERTS]
        + [(f"{name} is quiet", name, False) for name in ALERTS]
    )


def _checked(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHECK],
        env={"PATH": str(path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_promtool_that_is_said_and_ci_fails(tmp_path: Path) -> None:
    here, in_ci = _checked(tmp_path), _checked(tmp_path, CI="true")
    assert here.returncode == 0
    assert "promtool is missing" in here.stderr
    assert "NOT checked" in here.stderr
    assert in_ci.returncode == 1
    assert "promtool is missing" in in_ci.stderr


def test_what_promtool_refuses_is_refused(tmp_path: Path) -> None:
    """Both of its commands are run; the second fails here."""
    promtool = tmp_path / "promtool"
    promtool.write_text('#!/bin/sh\necho "ran $1"\n[ "$1" = check ]\n')
    promtool.chmod(0o755)
    done = _checked(tmp_path, CI="true")
    assert done.returncode == 1
    assert done.stdout == "ran check\nran test\n"
