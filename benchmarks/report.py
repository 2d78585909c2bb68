"""Figures as a person reads them: medians of the rounds, and what they are compared with."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

from scenarios import Run

HEAD: Final = (
    f"{'scenario':<10}{'contestant':<12}{'charges/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'errors':>8}"
    f"{'server µs':>11}{'PostgreSQL':>11}{'client':>8}{'elsewhere':>11}"
)


def line(run: Run) -> str:
    """One round, while it runs."""
    return _row(run, _errors(run), *_figures(run))


def summary(runs: Sequence[Run]) -> str:
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.scenario, run.contestant), []).append(run)
    lines = [_median_line(group) for group in groups.values()]
    return "\n".join(["", "Medians", HEAD, *lines, "", *_ratios(groups)])


def _median_line(group: Sequence[Run]) -> str:
    figures = (median(column) for column in zip(*map(_figures, group), strict=True))
    return _row(group[0], _errors(*group), *figures)


def _errors(*runs: Run) -> int:
    """Of all rounds: a median would hide them."""
    return sum(run.load.non_2xx + run.load.socket_errors for run in runs)


def _figures(run: Run) -> tuple[float, ...]:
    cpu = (run.server_cpu_us, run.postgres_cpu_us, run.client_cpu_us, run.elsewhere_cores)
    return (run.per_second, run.load.p50_ms, run.load.p99_ms, *cpu)


def _row(run: Run, errors: int, *figures: float) -> str:
    speed, p50, p99, server, postgres, client, elsewhere = figures
    return (
        f"{run.scenario:<10}{run.contestant:<12}{speed:>10,.0f}{p50:>9.1f}{p99:>9.1f}{errors:>8}"
        f"{server:>11.0f}{postgres:>11.0f}{client:>8.0f}{elsewhere:>11.2f}"
    )


def _ratios(groups: dict[tuple[str, str], list[Run]]) -> Iterable[str]:
    """What the figures mean: against the baseline, and against PicoPay's own spread."""
    speeds = {key: median(run.per_second for run in group) for key, group in groups.items()}
    for (scenario, contestant), speed in speeds.items():
        if contestant == "baseline":
            continue
        # The baseline has no batches: they are compared with its single charges.
        same = "spread" if scenario == "batch" else scenario
        others = {
            f"the baseline's {same}": speeds.get((same, "baseline")),
            "its own spread": speeds.get(("spread", contestant)) if scenario != "spread" else None,
            "the empty database's": speeds.get((scenario, "empty"))
            if contestant == "grown"
            else None,
        }
        for label, other in others.items():
            if other:
                yield f"{scenario}, {contestant}: {speed / other:.2f} x {label}"
    yield from _latencies(groups)


def _latencies(groups: dict[tuple[str, str], list[Run]]) -> Iterable[str]:
    baseline = groups.get(("spread", "baseline"))
    for (scenario, contestant), group in groups.items():
        if baseline and scenario == "spread" and contestant != "baseline":
            ours = median(run.load.p99_ms for run in group)
            theirs = median(run.load.p50_ms for run in baseline)
            yield f"spread, {contestant}: p99 {ours:.1f} ms, the baseline's p50 {theirs:.1f} ms"
