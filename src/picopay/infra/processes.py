"""What several processes use of the machine, shown as if they were one."""

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_NEWEST: Final = "process_start_time_seconds"  # so that a restart of any of them is seen


class Processes(Collector):
    """The `process_…` metrics that a single process shows: sums, and the newest start."""

    def __init__(self, pids: Collection[int]) -> None:
        self._collectors = [
            ProcessCollector(pid=lambda pid=pid: pid, registry=None) for pid in pids
        ]

    def collect(self) -> Iterable[Metric]:
        by_name: dict[str, list[Metric]] = {}
        for collector in self._collectors:
            for metric in collector.collect():
                by_name.setdefault(metric.name, []).append(metric)
        return [_together(metrics, max if n == _NEWEST else sum) for n, metrics in by_name.items()]


def _together(metrics: Sequence[Metric], combine: Callable[[list[float]], float]) -> Metric:
    first = metrics[0]
    whole = Metric(first.name, first.documentation, first.type)
    value = combine([metric.samples[0].value for metric in metrics])
    whole.add_sample(first.samples[0].name, {}, value)
    return whole


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
