"""`picopay worker`: background work alone, beside any number of servers and other workers."""

import asyncio
import os
import signal
from time import monotonic
from typing import Annotated, Final, NoReturn

import typer

from picopay.cli.context import DataDir, check_tracing, prepared, with_payment_secret
from picopay.cli.errors import CommandFailed
from picopay.infra import logs, metrics, tracing
from picopay.infra.logs import log
from picopay.infra.settings import Settings
from picopay.worker import Worker

# Longer than anything that blocks a loop that is well.
STUCK_SECONDS: Final = 30.0


def worker(
    data_dir: DataDir = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Show Prometheus metrics on this port.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="And on this address.")] = "127.0.0.1",
) -> None:
    """Handle what happens later: transaction webhooks, retries, chores. Stop it with SIGTERM.

    What is in hand is finished first; a second signal ends it at once, and others take over. The
    fake payment provider is asked at `PICOPAY_URL`: set it beside a server on another port.

    Example: `picopay worker --metrics-port 9100`
    """
    signal.signal(signal.SIGTERM, _stop)
    pulse = Pulse()
    if metrics_port is not None:
        _show_metrics(metrics_host, metrics_port, pulse)
    with prepared(data_dir, create=False) as (settings, lease):
        check_tracing(settings)
        with_payment_secret(settings)
        logs.configure(settings.log_level, settings.log_format)
        if lease is not None:
            lease.watch(lambda message: log.warning("embedded.keeper", message=message))
        asyncio.run(_work(settings, pulse, samples=metrics_port is not None))


class Pulse:
    """Whether the event loop still turns, as another thread sees it."""

    def __init__(self) -> None:
        self._beat: float | None = None

    def is_felt(self) -> bool:
        """Also before it begins: to start may take its time."""
        return self._beat is None or monotonic() - self._beat < STUCK_SECONDS

    async def go_on(self) -> None:
        while True:
            self._beat = monotonic()
            await asyncio.sleep(1)


def _show_metrics(host: str, port: int, pulse: Pulse) -> None:
    try:
        metrics.serve(host, port, pulse.is_felt)
    except OSError as error:
        raise CommandFailed(f"no metrics on {host}:{port}: {error.strerror}") from None


def _stop(_signal: int, _frame: object) -> NoReturn:
    """Before there is anything to finish."""
    raise SystemExit(0)


async def _work(settings: Settings, pulse: Pulse, *, samples: bool) -> None:
    stopping = asyncio.Event()
    beating = asyncio.create_task(pulse.go_on())

    def stop() -> None:
        if stopping.is_set():
            os._exit(1)  # leases end by themselves
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    tracing.start(settings)
    background = Worker(settings, samples=samples)
    log.info("worker.started", picopay_url=settings.picopay_url)
    await stopping.wait()
    await background.stop()
    beating.cancel()
    await asyncio.to_thread(tracing.stop)
    log.info("worker.stopped")
