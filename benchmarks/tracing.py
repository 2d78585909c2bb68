"""What tracing costs a charge: off, one request in a hundred, and all of them, by turns.

A collector in a process of its own takes the spans and throws them away.
"""

import argparse
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from children import free_port, start, stop
from contestants import Contestant, check_money, prepare, running
from load import create_users
from scenarios import Plan, Run, by_wrk
from servers import Servers, run_servers

PICOPAY: Final = Contestant("picopay", "picopay", "picopay", 1)
OFF: Final = "off"
COLLECTOR: Final = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def ways(endpoint: str) -> dict[str, dict[str, str]]:
    """How it is traced, and the settings that make it so."""
    on = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    some = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
    return {OFF: {}, "1 %": on | some, "all": on}


def measure(servers: Servers, settings: Mapping[str, str], plan: Plan) -> Run:
    with running(servers, PICOPAY, settings) as server:
        run = by_wrk(server, "spread", plan)
        check_money(servers, PICOPAY)
    return run


def report(runs: Mapping[str, list[Run]]) -> None:
    """Medians, and what each is of `off`."""

    def medians(way: str) -> tuple[float, float, float]:
        of = runs[way]
        return (
            statistics.median(run.per_second for run in of),
            statistics.median(run.server_cpu_us for run in of),
            statistics.median(run.load.p99_ms for run in of),
        )

    print("traced   charges/s   ratio   CPU µs a charge   ratio   p99 ms   elsewhere (cores)")
    speed_off, cpu_off, _ = medians(OFF)
    for way, of in runs.items():
        speed, cpu, p99 = medians(way)
        elsewhere = statistics.median(run.elsewhere_cores for run in of)
        print(
            f"{way:<6} {speed:>11,.0f} {speed / speed_off:>7.2f} {cpu:>17.0f}"
            f" {cpu / cpu_off:>7.2f} {p99:>8.1f} {elsewhere:>10.2f}"
        )


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(1)


def main() -> None:
    signal.signal(signal.SIGTERM, _leave)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    asked = parser.parse_args()
    plan = Plan(asked.seconds, asked.rounds, asked.connections, 0, 0, 0, 0)
    with run_servers(asked.folder) as servers:
        port = free_port()
        log = servers.folder / "collector.log"
        collector = start([sys.executable, "-c", COLLECTOR, str(port)], log=log)
        try:
            prepare(servers, PICOPAY)
            with running(servers, PICOPAY) as server:
                create_users(server)
            told = ways(f"http://127.0.0.1:{port}")
            runs: dict[str, list[Run]] = {way: [] for way in told}
            for _ in range(plan.rounds):
                for way, settings in told.items():
                    runs[way].append(measure(servers, settings, plan))
        finally:
            stop(collector)
    report(runs)


if __name__ == "__main__":
    main()
