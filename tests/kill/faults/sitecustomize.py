"""Strikes at a named point inside a `picopay` command, without a hook in its source.

Python imports this by its name from PYTHONPATH, in every process started so; it acts only in the
commands below. `FAULT` is `point:victim:n`: at the n-th call of the point, once the file
`FAULT_ARMED` exists, the victim is killed (or stopped, if it is `stopped`, which means the process
itself), and a file beside it tells that it was. `FAULT_ONLY` names the one transaction whose
effect is struck.
"""

import os
import sys
from pathlib import Path

from charge_points import POINTS as CHARGE_POINTS
from event_points import POINTS as EVENT_POINTS
from order_points import IN_SERVER, IN_WORKER
from striking import Fault

POINTS = {
    "serve": CHARGE_POINTS | IN_SERVER,
    "worker": EVENT_POINTS | IN_WORKER,
    "dead-letters": EVENT_POINTS,
}


def install(command: str) -> None:
    point, victim, call = os.environ["FAULT"].split(":")
    if point not in POINTS[command]:
        raise SystemExit(f"no such point in {command}: {point}")
    armed = Path(os.environ["FAULT_ARMED"])
    POINTS[command][point](Fault(victim, int(call), armed, os.environ.get("FAULT_ONLY")))


if "FAULT" in os.environ:
    for command in POINTS.keys() & set(sys.orig_argv):
        install(command)
