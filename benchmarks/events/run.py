"""The outbox beside PgQueuer and procrastinate: the same no-op work on the same PostgreSQL.

Contestants take turns, round by round. After each run everything must have been handled exactly
once and nothing may be left: a wrong run has no speed.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from children import start, stop  # noqa: E402  (in the folder above)
from queues import QUEUES  # noqa: E402  (after it)
from servers import Servers, execute, number, run_servers  # noqa: E402  (likewise)
from webhooks import CONTESTANT as WEBHOOKS  # noqa: E402  (likewise)
from webhooks import steady  # noqa: E402  (likewise)

SCENARIOS: Final = ("drain", "latency", "held", "webhooks")
HANDLED_SECONDS_MAX: Final = 120
WARM_UP_SECONDS: Final = 2
WEBHOOKS_PER_SECOND: Final = 500
HEAD: Final = (
    f"{'scenario':<18}{'queue':<16}{'events/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'claim ms':>9}"
)


@dataclass(frozen=True)
class Result:
    scenario: str
    queue: str
    per_second: float
    p50_ms: float
    p99_ms: float
    claim_p50_ms: float | None


def main() -> None:
    signal.signal(signal.SIGTERM, _leave)  # so that our servers end with us
    arguments = _arguments()
    results: list[Result] = []
    with run_servers(arguments.folder) as servers:
        print(HEAD, flush=True)
        for turn in range(arguments.rounds):
            for scenario in arguments.only:
                names = ["picopay"] if scenario in {"held", "webhooks"} else arguments.queues
                for name in names:
                    found = _run(servers, scenario, name, turn, arguments)
                    for result in found:
                        print(_line(result), flush=True)
                    results.extend(found)
    print("\nMedians")
    for result in _medians(results):
        print(_line(result))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(r) for r in results], indent=2) + "\n")


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (a signal handler)
    sys.exit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--only", type=lambda text: text.split(","), default=SCENARIOS, help=", ".join(SCENARIOS))
    add("--queues", type=lambda text: text.split(","), default=tuple(QUEUES))
    add("--rounds", type=int, default=3)
    add("--events", type=int, default=20_000, help="to drain (20,000)")
    add("--seconds", type=int, default=20, help="of steady load for latency (20)")
    add("--per-second", type=int, default=1000, help="events of steady load (1,000)")
    add("--held-seconds", type=int, default=60, help="that a snapshot is held (60)")
    add("--webhook-seconds", type=int, default=60, help="of 500 webhooks a second (60)")
    add("--folder", type=Path, default=Path("/tmp"), help="where PostgreSQL keeps its data")  # noqa: S108  (a folder of our own is made in it)
    add("--json", type=Path, metavar="FILE", help="write every run to it")
    return parser.parse_args()


def _run(
    servers: Servers, scenario: str, name: str, turn: int, arguments: argparse.Namespace
) -> list[Result]:
    if scenario == "webhooks":
        return [_webhooks(servers, arguments.webhook_seconds)]
    database = f"{name}-{scenario}-{turn}"
    servers.create_database(database)
    trial = Trial(servers, name, database)
    trial.child("install")
    execute(servers, "postgres", "CHECKPOINT")
    if scenario == "drain":
        found = [trial.drain(arguments.events)]
    elif scenario == "latency":
        found = trial.latency(arguments.per_second, arguments.seconds)
    else:
        found = trial.held(arguments.held_seconds)
    execute(servers, "postgres", f'DROP DATABASE "{database}" WITH (FORCE)')
    return found


def _webhooks(servers: Servers, seconds: int) -> Result:
    latencies = sorted(steady(servers, WEBHOOKS_PER_SECOND, seconds))
    p50, p99 = (latencies[int(share * len(latencies))] * 1e3 for share in (0.5, 0.99))
    execute(servers, "postgres", f'DROP DATABASE "{WEBHOOKS.database}" WITH (FORCE)')
    return Result("webhooks", "picopay", len(latencies) / seconds, p50, p99, None)


@dataclass
class Trial:
    """One contestant on an empty database."""

    servers: Servers
    queue: str
    database: str

    def drain(self, events: int) -> Result:
        """From a tenth done to all done: claim, handle, acknowledge."""
        self.child("fill", plan={"events": events})
        execute(self.servers, self.database, "VACUUM ANALYZE")
        with self.working() as told:
            self._wait_until_empty()
        times = sorted(at for _, at in self._exactly_once(told, events))
        tenth = events // 10
        rate = (events - tenth) / (times[-1] - times[tenth])
        return Result("drain", self.queue, rate, 0, 0, None)

    def latency(self, per_second: int, seconds: int) -> list[Result]:
        """From commit to handler and to effect, five events in a transaction, once warm.

        Of the others only the handler can be told: their effects are their handlers' own affair.
        """
        with self.working() as told:
            committed = self._produce(per_second, WARM_UP_SECONDS + seconds)
            self._wait_until_empty()
        handled = dict(self._exactly_once(told, len(committed)))
        since = min(at for _, at in committed) + WARM_UP_SECONDS
        warm = [(n, at) for n, at in committed if at >= since]
        rate = len(warm) / (max(handled.values()) - since)
        called = dict(reversed(json.loads(told.read_text())["called"]))  # the first time
        ends = {"latency: handler": called}
        if self.queue == "picopay":
            ends["latency: effect"] = handled
        return [
            self._result(label, rate, [max(end[n] - at, 0) for n, at in warm])
            for label, end in ends.items()
        ]

    def held(self, held_seconds: int) -> list[Result]:
        """Claims before, in the last ten seconds of, and after a transaction that stays open."""
        before, after = 15, 15
        plan = {
            "per_second": 800,
            "seconds": before + held_seconds + after,
            "transaction_events": 4,
        }
        with self.working() as told:
            producer = self._child("produce", plan=plan, out=self._file("committed"))
            began = time.monotonic()
            time.sleep(before)
            reader = self.servers.connect(self.database)
            with reader.cursor() as cursor:
                cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM users")
                held_from = time.monotonic()
                time.sleep(held_seconds)
                held_until = time.monotonic()
            reader.close()
            self._ended(producer)
            self._wait_until_empty()
        committed = [(n, at) for n, at in json.loads(self._file("committed").read_text())]
        handled = dict(self._exactly_once(told, len(committed)))
        spans = {
            "held: before": (began + 5, held_from),
            "held: last 10 s": (held_until - 10, held_until),
            "held: after": (held_until + 5, held_until + after),
        }
        claims = json.loads(told.read_text())["claims"]
        return [
            self._result(
                label,
                sum(since <= at < until for _, at in committed) / (until - since),
                [handled[n] - at for n, at in committed if since <= at < until],
                [seconds for at, seconds, rows in claims if rows and since <= at < until],
            )
            for label, (since, until) in spans.items()
        ]

    def _produce(self, per_second: int, seconds: int) -> list[tuple[int, float]]:
        plan = {"per_second": per_second, "seconds": seconds, "transaction_events": 5}
        self._ended(self._child("produce", plan=plan, out=self._file("committed")))
        return [(n, at) for n, at in json.loads(self._file("committed").read_text())]

    def _result(
        self,
        scenario: str,
        rate: float,
        latencies: Sequence[float],
        claims: Sequence[float] | None = None,
    ) -> Result:
        ordered = sorted(latencies)
        p50, p99 = (ordered[int(share * len(ordered))] * 1e3 for share in (0.5, 0.99))
        claim = median(claims) * 1e3 if claims else None
        return Result(scenario, self.queue, rate, p50, p99, claim)

    @contextmanager
    def working(self) -> Generator[Path]:
        """While a worker runs; afterwards the file tells what it did."""
        told = self._file("handled")
        worker = self._child("work", out=told)
        time.sleep(1)
        try:
            yield told
        finally:
            stop(worker)

    def child(self, role: str, *, plan: dict[str, Any] | None = None) -> None:
        self._ended(self._child(role, plan=plan))

    def _child(
        self, role: str, *, plan: dict[str, Any] | None = None, out: Path | None = None
    ) -> subprocess.Popen[bytes]:
        url = self.servers.database_url(self.database)
        command = [sys.executable, HERE / "child.py", role, self.queue, url]
        command += ["--plan", json.dumps(plan or {}), *(["--out", out] if out else [])]
        return start(command, log=self._file("log"))

    def _ended(self, child: subprocess.Popen[bytes]) -> None:
        if child.wait(timeout=600) != 0:
            raise SystemExit(f"{self.queue} failed:\n{self._file('log').read_text()[-4000:]}")

    def _file(self, name: str) -> Path:
        return self.servers.folder / f"{self.database}-{name}"

    def _wait_until_empty(self) -> None:
        give_up_at = time.monotonic() + HANDLED_SECONDS_MAX
        while left := number(self.servers, self.database, QUEUES[self.queue].left):
            if time.monotonic() > give_up_at:
                raise SystemExit(f"WRONG: {self.queue} left {left} events unhandled")
            time.sleep(0.25)

    def _exactly_once(self, told: Path, events: int) -> list[tuple[int, float]]:
        handled = [(n, at) for n, at in json.loads(told.read_text())["handled"]]
        if sorted(n for n, _ in handled) != list(range(events)):
            raise SystemExit(f"WRONG: {self.queue} handled {len(handled)} of {events} events")
        return handled


def _medians(results: Sequence[Result]) -> list[Result]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.scenario, result.queue), []).append(result)
    return [
        Result(
            scenario,
            name,
            median(r.per_second for r in group),
            median(r.p50_ms for r in group),
            median(r.p99_ms for r in group),
            None if group[0].claim_p50_ms is None else median(r.claim_p50_ms or 0 for r in group),
        )
        for (scenario, name), group in groups.items()
    ]


def _line(result: Result) -> str:
    claim = "" if result.claim_p50_ms is None else f"{result.claim_p50_ms:.2f}"
    times = (
        f"{'':>18}" if result.scenario == "drain" else f"{result.p50_ms:>9.1f}{result.p99_ms:>9.1f}"
    )
    return f"{result.scenario:<18}{result.queue:<16}{result.per_second:>10,.0f}{times}{claim:>9}"


if __name__ == "__main__":
    main()
