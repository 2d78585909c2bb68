"""The benchmark: PicoPay beside a textbook baseline, on servers of its own.

Contestants take turns, round by round, so that the machine's moods meet all of them. After each
run the answers are compared with the rows and the ledger is checked: a wrong run has no speed.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import report
from contestants import Contestant, Wrong, prepare, running
from load import create_users
from preload import preload
from scenarios import Plan, Run, by_batches, by_wrk, checked, memory
from servers import SETTINGS, Servers, run_servers

SCENARIOS: Final = ("spread", "hot", "replay", "batch", "growth", "memory")
SINGLE: Final = ("spread", "hot", "replay")
BASELINE: Final = Contestant("baseline", "baseline", "baseline", 0)


@dataclass
class Bench:
    """One invocation: what to do, and what came of it."""

    servers: Servers
    plan: Plan
    chosen: tuple[str, ...]
    runs: list[Run] = field(default_factory=list)
    memory: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def add(self, run: Run) -> None:
        self.runs.append(run)
        print(report.line(run), flush=True)


def main() -> None:
    signal.signal(signal.SIGTERM, _leave)  # so that our servers end with us
    arguments = _arguments()
    plan = _plan(arguments)
    began = time.monotonic()
    with run_servers(arguments.folder) as servers:
        bench = Bench(servers, plan, arguments.only)
        try:
            _measure(bench, arguments)
        except Wrong as wrong:
            raise SystemExit(f"WRONG, so there is no speed to report: {wrong}") from None
    if bench.runs:
        print(report.summary(bench.runs))
    print(f"\ntook {time.monotonic() - began:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(_as_json(bench), indent=2) + "\n")


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (a signal handler)
    sys.exit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round, few charges: a trial, no figures")
    add("--only", type=_names(SCENARIOS), default=SCENARIOS, help="scenarios, comma-separated")
    add("--contestants", type=_names(("baseline", "picopay")), default=("baseline", "picopay"))
    add("--workers", type=_numbers, default=(1,), help="of PicoPay; a contestant for each number")
    add("--seconds", type=int, help="of a run (10)")
    add("--rounds", type=int, help="of each scenario (3)")
    add("--connections", type=int, default=64)
    add("--growth-charges", type=int, help="charges that are already there (5,000,000)")
    add("--folder", type=Path, default=Path("/tmp"), help="where the servers keep their data")  # noqa: S108  (a folder of our own is made in it)
    add("--json", type=Path, metavar="FILE", help="write every run to it")
    return parser.parse_args()


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not of {', '.join(known)}")
        return names

    return parse


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _plan(arguments: argparse.Namespace) -> Plan:
    quick: bool = arguments.quick
    return Plan(
        seconds=arguments.seconds or (3 if quick else 10),
        rounds=arguments.rounds or (1 if quick else 3),
        connections=arguments.connections,
        batch_charges=40_000 if quick else 200_000,
        batch_size=2000,
        growth_charges=arguments.growth_charges or (200_000 if quick else 5_000_000),
        memory_charges=50_000 if quick else 500_000,
    )


def _measure(bench: Bench, arguments: argparse.Namespace) -> None:
    print(report.HEAD, flush=True)
    ours = [
        Contestant(f"picopay-{workers}", "picopay", "picopay", 1, workers)
        for workers in arguments.workers
        if "picopay" in arguments.contestants
    ]
    theirs = [BASELINE] if "baseline" in arguments.contestants else []
    if {*SINGLE, "batch"} & {*bench.chosen}:
        _rounds(bench, theirs, ours)
    if ours and "growth" in bench.chosen:
        _growth(bench, ours[0].workers)
    if ours and "memory" in bench.chosen:
        _memory(bench, ours[0].workers)


def _rounds(bench: Bench, theirs: list[Contestant], ours: list[Contestant]) -> None:
    for contestant in [*theirs, *ours[:1]]:  # ours share a database
        _prepare(bench, contestant)
    for _ in range(bench.plan.rounds):
        for contestant in [*theirs, *ours]:
            for scenario in bench.chosen:
                if scenario in SINGLE or (scenario == "batch" and contestant is not BASELINE):
                    _one(bench, contestant, scenario)


def _one(bench: Bench, contestant: Contestant, scenario: str) -> None:
    with checked(bench.servers, contestant) as server:
        if scenario == "batch":
            run = by_batches(server, bench.plan)
        else:
            run = by_wrk(server, scenario, bench.plan)
    bench.add(run)


def _growth(bench: Bench, workers: int) -> None:
    """Two databases that differ only in the charges already there take turns."""
    empty = Contestant("empty", "picopay", "empty", 2, workers)
    grown = Contestant("grown", "picopay", "grown", 3, workers)
    for contestant in (empty, grown):
        _prepare(bench, contestant)
    began = time.monotonic()
    preload(bench.servers, grown.database, bench.plan.growth_charges)
    print(f"{bench.plan.growth_charges:,} charges inserted in {time.monotonic() - began:.0f} s")
    for _ in range(bench.plan.rounds):
        for contestant in (empty, grown):
            with checked(bench.servers, contestant) as server:
                run = by_wrk(server, "growth", bench.plan, script="spread")
            bench.add(run)


def _memory(bench: Bench, workers: int) -> None:
    contestant = Contestant("memory", "picopay", "memory", 4, workers)
    _prepare(bench, contestant)
    with checked(bench.servers, contestant) as server:
        samples = bench.memory[f"picopay-{workers}"] = memory(server, bench.plan)
    print("memory: resident MiB of the server's processes after so many charges")
    print("  ".join(f"{done:,}: {size / 2**20:.1f}" for done, size in samples), flush=True)


def _prepare(bench: Bench, contestant: Contestant) -> None:
    prepare(bench.servers, contestant)
    if contestant.kind == "picopay":
        with running(bench.servers, contestant) as server:
            create_users(server)


def _as_json(bench: Bench) -> dict[str, Any]:
    return {
        "plan": asdict(bench.plan),
        "postgresql": SETTINGS,
        "cpus": os.cpu_count(),
        "runs": [run.as_json() for run in bench.runs],
        "memory": bench.memory,
    }


if __name__ == "__main__":
    main()
