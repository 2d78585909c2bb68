"""Sets the clock of a `picopay` server or worker process off.

Python imports this by its name from PYTHONPATH, in every process started so.
`CLOCK_SHIFT_SECONDS` is by how much, from the start; `CLOCK_TOLD` is a file that is then told what
time it is there, and while there is a file `CLOCK_GATE`, what the worker has claimed waits, and is
kept claimed. Or `CLOCK_JUMP` is a file that says by how much, for as long as it is there.
"""

import asyncio
import datetime as dt
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self


def shift_time(seconds: Callable[[], float]) -> None:
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds()
    time.time_ns = lambda: now_ns() + int(seconds() * 1_000_000_000)


def shift_dates(seconds: float) -> None:
    """A server's JSON takes only dates of the true kind, so not for servers, which ask for none."""
    real = dt.datetime

    class Alike(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

    class Shifted(real, metaclass=Alike):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Self:
            return super().now(tz) + dt.timedelta(seconds=seconds)

        @classmethod
        def utcnow(cls) -> Any:  # noqa: ANN401 - as its parent's
            return real.fromtimestamp(time.time(), dt.UTC).replace(tzinfo=None)

    dt.datetime = Shifted


def told_by(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return 0.0


def hold(gate: Path) -> None:
    from picopay.outbox import service  # noqa: PLC0415 - not in processes that only pass by

    original = service.handle_together

    async def held(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - whatever it is given
        while gate.exists():  # noqa: ASYNC110, ASYNC240 - another process removes it
            await asyncio.sleep(0.02)
        await original(*arguments, **options)

    service.handle_together = held


if "worker" in sys.orig_argv and "CLOCK_SHIFT_SECONDS" in os.environ:
    always = float(os.environ["CLOCK_SHIFT_SECONDS"])
    shift_time(lambda: always)
    shift_dates(always)
    told = dt.datetime.now(dt.UTC).timestamp()
    Path(os.environ["CLOCK_TOLD"]).write_text(f"{told} {time.time()}")
    hold(Path(os.environ["CLOCK_GATE"]))
elif {"worker", "serve"} & set(sys.orig_argv) and "CLOCK_JUMP" in os.environ:
    jump = Path(os.environ["CLOCK_JUMP"])
    shift_time(lambda: told_by(jump))
