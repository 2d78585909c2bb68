"""The application of one server process; what serves it is `serve`.

A process beside others begins here, with next to nothing imported: so it sees at once whether its
supervisor still lives, and spares what only commands need.
"""

import asyncio
import gc
import multiprocessing
import signal
from importlib import import_module
from types import FrameType

from starlette.types import ASGIApp

from picopay.cli import shared_metrics
from picopay.embedded.privileges import die_with_parent
from picopay.infra import draining, logs, tracing
from picopay.infra.logs import log
from picopay.infra.settings import Settings


def application() -> ASGIApp:
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and supervisor.pid is not None:
        # A server process whose supervisor was killed would go on serving unsupervised.
        die_with_parent(signal.SIGTERM, supervisor.pid)
        shared_metrics.hold()
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    tracing.start(settings)
    app: ASGIApp = import_module("picopay.app").server_app(settings)
    if settings.shutdown_drain_seconds > 0:
        _drain_first(settings.shutdown_drain_seconds)
    _calm_garbage_collector()
    return app


def _drain_first(seconds: float) -> None:
    """Serve on for so long after the first SIGTERM; another, or SIGINT, is the server's own."""
    end, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()
    assert callable(end), "the server has set its handlers before it asks for the application"

    def told(number: int, frame: FrameType | None) -> None:
        if draining.has_begun():
            end(number, frame)
            return
        draining.announce()
        log.info("server.draining", seconds=seconds)
        loop.call_later(seconds, end, number, frame)

    signal.signal(signal.SIGTERM, told)


def _calm_garbage_collector() -> None:
    """What start-up made stays for good, and a request leaves few cycles: look seldom.

    With the defaults the collector walks the whole heap several times a second under load, which
    is most of the slowest percentile's latency.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
