"""Orders beside a textbook implementation, over many products and all for one; and until paid.

Contestants take turns, round by round. After each run the answers are compared with the rows and
the stock: a wrong run has no speed.
"""

import argparse
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import sleep
from types import FrameType
from typing import Final
from uuid import uuid4

HERE: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import paid  # noqa: E402  (beside this file)
from children import start, stop  # noqa: E402  (in the folder above)
from contestants import (  # noqa: E402  (likewise)
    PICOPAY,
    Contestant,
    Wrong,
    checkpoint,
    environment_of,
    finish,
    free_port,
    wait_until_healthy,
)
from load import Load, wrk  # noqa: E402  (likewise)
from servers import Servers, execute, number, run_servers  # noqa: E402  (likewise)

PRODUCTS: Final = 1000
STOCK: Final = 2_000_000_000
WARM_UP_SECONDS: Final = 2
SCENARIOS: Final = {"spread": PRODUCTS, "hot": 1}
CONTESTANTS: Final = (
    Contestant("baseline", "baseline", "orders-baseline", 6),
    Contestant("picopay", "picopay", "orders-picopay", 7),
)
PAID: Final = Contestant("paid", "picopay", "orders-paid", 8)
# No worker: what is measured is the placing of orders. No limit for the one address.
OF_PICOPAY: Final = {
    "PICOPAY_WORKER": "false",
    "PAYMENT_PROVIDER": "manual",
    "RATE_LIMIT_ORDERS_PER_ADDRESS_PER_MINUTE": "0",
}
HEAD: Final = f"{'scenario':<10}{'contestant':<12}{'orders/s':>10}{'p50 ms':>9}{'p99 ms':>9}"


@dataclass(frozen=True)
class Run:
    scenario: str
    contestant: str
    load: Load

    @property
    def per_second(self) -> float:
        return self.load.ok / self.load.seconds


def main() -> None:
    signal.signal(signal.SIGTERM, _leave)  # so that our servers end with us
    arguments = _arguments()
    runs: list[Run] = []
    with run_servers(arguments.folder, track_commit_timestamp="on") as servers:
        ids = servers.folder / "products"
        ids.write_text("".join(f"{uuid4()}\n" for _ in range(PRODUCTS)))
        hot = servers.folder / "hot"
        hot.write_text(ids.read_text().splitlines()[0] + "\n")
        for contestant in CONTESTANTS:
            _prepare(servers, contestant, ids)
        print(HEAD, flush=True)
        try:
            for _ in range(arguments.rounds):
                for contestant in CONTESTANTS:
                    for scenario, products in (("spread", ids), ("hot", hot)):
                        load = _measure(servers, contestant, products, arguments)
                        runs.append(Run(scenario, contestant.name, load))
                        print(_line(runs[-1:]), flush=True)
            _prepare(servers, PAID, ids)
            waited = paid.steady(servers, PAID, ids, per_second=100, seconds=arguments.paid_seconds)
        except Wrong as wrong:
            raise SystemExit(f"WRONG, so there is no speed to report: {wrong}") from None
    print(f"\nMedians\n{HEAD}")
    _summary(runs)
    print(f"paid: {_percentiles(waited)} from commit to commit, at 100 orders/s")


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (a signal handler)
    sys.exit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=3)
    add("--seconds", type=int, default=8, help="of a run (8)")
    add("--paid-seconds", type=int, default=60, help="of the run that waits for payments (60)")
    add("--connections", type=int, default=64)
    add("--folder", type=Path, default=Path("/tmp"), help="where the servers keep their data")  # noqa: S108  (a folder of our own is made in it)
    return parser.parse_args()


def _prepare(servers: Servers, contestant: Contestant, ids: Path) -> None:
    servers.create_database(contestant.database)
    if contestant.kind == "baseline":
        setup = [sys.executable, HERE / "baseline/setup.py", ids, "--stock", str(STOCK)]
        finish(servers, contestant, setup)
        return
    finish(servers, contestant, [PICOPAY, "migrate"])
    values = ", ".join(f"('{line}'::uuid)" for line in ids.read_text().split())
    # As the catalog would have written them one by one.
    statement = f"""
WITH made AS (
  INSERT INTO products (id, name, currency, price, stock, is_active, version)
  SELECT id, 'Product', 'USD', 2500, {STOCK}, true, 1 FROM (VALUES {values}) AS new(id)
  RETURNING id)
INSERT INTO stock_moves (product_id, version, id, delta, reason, stock_after)
SELECT id, 1, gen_random_uuid(), {STOCK}, 'opened', {STOCK} FROM made"""  # noqa: S608  (ours)
    execute(servers, contestant.database, statement)


def _measure(
    servers: Servers, contestant: Contestant, products: Path, arguments: argparse.Namespace
) -> Load:
    with _running(servers, contestant) as port:
        script = str(HERE / "orders")
        extra = {"BENCH_PRODUCTS": str(products)}
        connections: int = arguments.connections
        wrk(script, port, seconds=WARM_UP_SECONDS, connections=connections, extra=extra)
        before = _settled(servers, contestant)
        checkpoint(servers)
        load = wrk(script, port, seconds=arguments.seconds, connections=connections, extra=extra)
        made = _settled(servers, contestant) - before
        # When time is up wrk hangs up on requests whose orders may still be made.
        if load.non_2xx or not load.ok <= made <= load.ok + connections:
            raise Wrong(f"{contestant.name}: {load}, and {made} orders")
    sold = PRODUCTS * STOCK - number(
        servers, contestant.database, "SELECT sum(stock)::bigint FROM products"
    )
    if sold != _orders(servers, contestant):
        raise Wrong(f"{contestant.name}: {sold} pieces are gone")
    if contestant.kind == "picopay":
        finish(servers, contestant, [PICOPAY, "ledger", "check", "--json"])
    return load


def _settled(servers: Servers, contestant: Contestant) -> int:
    """How many orders there are once those are made that nobody waits for any more."""
    count = -1
    while (now := _orders(servers, contestant)) != count:
        count = now
        sleep(0.5)
    return count


def _orders(servers: Servers, contestant: Contestant) -> int:
    return number(servers, contestant.database, "SELECT count(*) FROM orders")


@contextmanager
def _running(servers: Servers, contestant: Contestant) -> Generator[int]:
    port, log = free_port(), servers.folder / f"{contestant.database}.log"
    if contestant.kind == "picopay":
        command: list[str | Path] = [PICOPAY, "serve", "--port", str(port)]
    else:
        command = [sys.executable, "-m", "uvicorn", "--app-dir", HERE / "baseline", "app:app"]
        command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = environment_of(servers, contestant) | OF_PICOPAY
    process = start(command, log=log, environment=environment)
    try:
        wait_until_healthy(process, port, log)
        yield port
    finally:
        stop(process)


def _summary(runs: Sequence[Run]) -> None:
    speeds: dict[tuple[str, str], float] = {}
    for scenario in SCENARIOS:
        for contestant in CONTESTANTS:
            group = [r for r in runs if (r.scenario, r.contestant) == (scenario, contestant.name)]
            print(_line(group))
            speeds[scenario, contestant.name] = median(run.per_second for run in group)
    for scenario in SCENARIOS:
        ratio = speeds[scenario, "picopay"] / speeds[scenario, "baseline"]
        print(f"{scenario}: {ratio:.1f} x the baseline")


def _percentiles(seconds: Sequence[float]) -> str:
    ordered = sorted(1000 * second for second in seconds)
    p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {ordered[-1]:.0f} ms"


def _line(runs: Sequence[Run]) -> str:
    speed = median(run.per_second for run in runs)
    p50, p99 = (median(run.load.p50_ms for run in runs), median(run.load.p99_ms for run in runs))
    return f"{runs[0].scenario:<10}{runs[0].contestant:<12}{speed:>10,.0f}{p50:>9.1f}{p99:>9.1f}"


if __name__ == "__main__":
    main()
