"""Sets the clock of a `picopay worker` process off by `CLOCK_SHIFT_SECONDS`.

Python imports this by its name from PYTHONPATH, in every process started so. `CLOCK_TOLD` is a
file that is then told what time it is there. While there is a file `CLOCK_GATE`, what the worker
has claimed waits, and is kept claimed.
"""

import asyncio
import datetime as dt
import os
import sys
import time
from pathlib import Path
from typing import Any, Self


def shift(seconds: float) -> None:
    now, now_ns, real = time.time, time.time_ns, dt.datetime
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1_000_000_000)

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


def hold(gate: Path) -> None:
    from picopay.outbox import service  # noqa: PLC0415 - not in processes that only pass by

    original = service.handle_together

    async def held(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - whatever it is given
        while gate.exists():  # noqa: ASYNC110, ASYNC240 - another process removes it
            await asyncio.sleep(0.02)
        await original(*arguments, **options)

    service.handle_together = held


if "worker" in sys.orig_argv and "CLOCK_SHIFT_SECONDS" in os.environ:
    shift(float(os.environ["CLOCK_SHIFT_SECONDS"]))
    told = dt.datetime.now(dt.UTC).timestamp()
    Path(os.environ["CLOCK_TOLD"]).write_text(f"{told} {time.time()}")
    hold(Path(os.environ["CLOCK_GATE"]))
