"""Makes a `picopay serve` process leak, by `LEAK`: memory or descriptors with every request."""

import os
import sys
from typing import Any

LEAKED_BYTES = 32 * 1024
_kept: list[object] = []


def leak(what: str) -> None:
    from picopay.infra import middleware  # noqa: PLC0415 - not in processes that only pass by

    original = middleware.Edge.__call__

    async def leaking(*arguments: Any) -> None:  # noqa: ANN401 - whatever it is given
        kept = bytearray(LEAKED_BYTES) if what == "memory" else os.open(os.devnull, os.O_RDONLY)
        _kept.append(kept)
        await original(*arguments)

    setattr(middleware.Edge, "__call__", leaking)  # noqa: B010 - of a looser type


if "serve" in sys.orig_argv and "LEAK" in os.environ:
    leak(os.environ["LEAK"])
