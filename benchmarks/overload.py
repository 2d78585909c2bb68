"""Three times what the server can do: it must go on at full speed, and refuse the rest at once.

First a closed loop finds the peak. Then charges come at a steady multiple of it, whether or not
they are answered, and right afterwards the closed loop again: for the recovery, and once more, to
tell whether the machine has kept its speed. Exit 1 unless what is accepted keeps its pace and is
answered in time, what is refused is told so at once, and the ledger agrees.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

from contestants import API_KEY, HERE, Contestant, Running, Wrong, checkpoint, prepare, running
from load import create_users, wrk
from scenarios import checked
from servers import run_servers

CONTESTANT: Final = Contestant("overload", "picopay", "overload", 9)
PEAK_CONNECTIONS: Final = (64, 256)  # the better of them is the peak
PREPARING_CLIENTS: Final = 16
WARM_UP_SECONDS: Final = 3
RECOVERY_SECONDS: Final = 5
OFFERED_SHARE_MIN: Final = 0.95  # of the rate, or the load generator was too slow
PACE_SHARE_MIN: Final = 0.9  # of the peak
REFUSED_P99_MS_MAX: Final = 50
ACCEPTED_P99_MS_MAX: Final = 1000


class Answers(NamedTuple):
    """Of one kind, timed from when each request was due."""

    answers: int
    within_50_ms: int
    p50_ms: int
    p99_ms: int
    max_ms: int


@dataclass(frozen=True)
class Storm:
    """What the clients saw of an overload."""

    seconds: float
    sent: int
    accepted: Answers
    refused: Answers
    others: int
    failed: int


class Check(NamedTuple):
    what: str
    found: float
    least: float
    most: float

    @property
    def holds(self) -> bool:
        return self.least <= self.found <= self.most


def main() -> None:
    signal.signal(signal.SIGTERM, _leave)  # so that our servers end with us
    arguments = _arguments()
    _allow_files(2 * arguments.connections + 1000)
    with run_servers(arguments.folder) as servers:
        prepare(servers, CONTESTANT)
        try:
            with running(servers, CONTESTANT) as server:
                create_users(server, clients=PREPARING_CLIENTS)
            with checked(servers, CONTESTANT) as server:
                checks = _measure(server, arguments)
        except Wrong as wrong:
            raise SystemExit(f"WRONG, so there is nothing to report: {wrong}") from None
    print("the ledger is clean")
    for check in checks:
        print(_line(check))
    if not all(check.holds for check in checks):
        raise SystemExit(1)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (a signal handler)
    sys.exit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--seconds", type=int, default=60, help="of the overload (60)")
    add("--times", type=float, default=3, help="the peak (3)")
    add("--peak-seconds", type=int, default=8, help="of each closed loop that looks for it (8)")
    add("--connections", type=int, default=1500, help="of the overload (1500)")
    add("--folder", type=Path, default=Path("/tmp"), help="where the servers keep their data")  # noqa: S108  (a folder of our own is made in it)
    return parser.parse_args()


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"at most {hard} open files are allowed here: ask for fewer --connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _measure(server: Running, arguments: argparse.Namespace) -> Sequence[Check]:
    seconds: int = arguments.seconds
    wrk("spread", server.port, seconds=WARM_UP_SECONDS, connections=PEAK_CONNECTIONS[0])
    peaks = {n: _closed(server, n, arguments.peak_seconds) for n in PEAK_CONNECTIONS}
    connections = max(peaks, key=peaks.__getitem__)
    peak = peaks[connections]
    print(f"peak {peak:,.0f}/s, with {connections} connections in a closed loop", flush=True)
    checkpoint(server.servers)
    before, rate = server.count_charges(), int(arguments.times * peak)
    storm = _storm(server, rate, seconds, arguments.connections)
    recovered = _closed(server, connections, RECOVERY_SECONDS)
    after = _closed(server, connections, arguments.peak_seconds)
    print(f"peak {after:,.0f}/s afterwards", flush=True)
    made = server.count_charges() - before
    _tell(storm)
    # When time is up wrk hangs up on requests whose charges may still be made.
    if made < storm.accepted.answers:
        raise Wrong(f"{storm.accepted.answers} charges were answered, {made} are there")
    return _checks(storm, peak, rate, recovered)


def _closed(server: Running, connections: int, seconds: int) -> float:
    load = wrk("spread", server.port, seconds=seconds, connections=connections)
    return load.ok / load.seconds


def _storm(server: Running, rate: int, seconds: int, connections: int) -> Storm:
    environment = {**os.environ, "BENCH_API_KEY": API_KEY, "BENCH_PER_SECOND": str(rate)}
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    script = HERE / "wrk" / "overload.lua"
    ended = subprocess.run(
        ["wrk", *options, "-s", script, f"http://127.0.0.1:{server.port}"],
        env=environment, capture_output=True, text=True, check=True, timeout=seconds + 60,
    )  # fmt: skip
    lines = [line for line in ended.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"wrk told no result:\n{ended.stdout}{ended.stderr}")
    told = json.loads(lines[0].removeprefix("RESULT "))
    accepted, refused = Answers(**told.pop("accepted")), Answers(**told.pop("refused"))
    return Storm(accepted=accepted, refused=refused, **told)


def _tell(storm: Storm) -> None:
    print(f"{storm.sent:,} sent in {storm.seconds:.0f} s; milliseconds from when each was due")
    print(f"{'':<10}{'answers':>10}{'in 50 ms':>10}{'p50':>7}{'p99':>7}{'max':>7}")
    for name, kind in (("accepted", storm.accepted), ("refused", storm.refused)):
        share = kind.within_50_ms / max(kind.answers, 1)
        print(
            f"{name:<10}{kind.answers:>10,}{share:>10.2%}"
            f"{kind.p50_ms:>7}{kind.p99_ms:>7}{kind.max_ms:>7}"
        )


def _checks(storm: Storm, peak: float, rate: int, recovered: float) -> Sequence[Check]:
    accepted, refused = storm.accepted, storm.refused
    endless = float("inf")
    return [
        Check("offered/s", storm.sent / storm.seconds, OFFERED_SHARE_MIN * rate, endless),
        Check("accepted/s", accepted.answers / storm.seconds, PACE_SHARE_MIN * peak, endless),
        Check("accepted, p99 ms", accepted.p99_ms, 0, ACCEPTED_P99_MS_MAX),
        Check("refused, p99 ms", refused.p99_ms, 0, REFUSED_P99_MS_MAX),
        Check("other answers", storm.others, 0, 0),
        Check("failed connections", storm.failed, 0, 0),
        Check(f"/s in the {RECOVERY_SECONDS} s after", recovered, PACE_SHARE_MIN * peak, endless),
    ]


def _line(check: Check) -> str:
    bounds = f"{check.least:,.0f} to {check.most:,.0f}".replace(" to inf", " or more")
    return f"{'ok   ' if check.holds else 'FAILS'} {check.what:<22}{check.found:>10,.0f}   {bounds}"


if __name__ == "__main__":
    main()
