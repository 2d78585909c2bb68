"""Three times what the server can do: it must go on at full speed, and refuse the rest at once.

First a closed loop finds the peak. Then charges come at a steady multiple of it, whether or not
they are answered, and right afterwards the closed loop again: for the recovery, and once more, to
tell whether the machine has kept its speed. Exit 1 unless what is accepted keeps its pace and is
answered in time, what is refused is told so at once, and the ledger agrees.
"""

import argparse
import random
import resource
import signal
import sys
import time
from bisect import bisect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

import uuid_utils
from contestants import API_KEY, USERS, Contestant, Running, Wrong, checkpoint, prepare, running
from load import Load, create_users, ms_at, wrk
from pace import SLOWED
from scenarios import checked
from servers import run_servers
from storm import Answer, Storm, storm

CONTESTANT: Final = Contestant("overload", "picopay", "overload", 9)
PEAK_CONNECTIONS: Final = (64, 256)  # the better of them is the peak
PREPARING_CLIENTS: Final = 16
WARM_UP_SECONDS: Final = 3
RECOVERY_SECONDS: Final = 5
OFFERED_SHARE_MIN: Final = 0.95  # of the rate, or the load generator was too slow
PACE_SHARE_MIN: Final = 0.9  # of the peak
REFUSED_P99_MS_MAX: Final = 50
FAST_SECONDS: Final = REFUSED_P99_MS_MAX / 1e3
ACCEPTED_P99_MS_MAX: Final = 1000


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
    add("--connections", type=int, default=3000, help="of the overload (3000)")
    add("--folder", type=Path, default=Path("/tmp"), help="where the servers keep their data")  # noqa: S108  (a folder of our own is made in it)
    return parser.parse_args()


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"at most {hard} open files are allowed here: ask for fewer --connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _measure(server: Running, arguments: argparse.Namespace) -> Sequence[Check]:
    _closed(server, PEAK_CONNECTIONS[0], WARM_UP_SECONDS)
    peaks = {n: _closed(server, n, arguments.peak_seconds) for n in PEAK_CONNECTIONS}
    connections = max(peaks, key=lambda n: _pace(peaks[n]))
    peak = _pace(peaks[connections])
    print(f"peak {peak:,.0f}/s, with {connections} connections in a closed loop", flush=True)
    checkpoint(server.servers)
    before, cpu = server.count_charges(), time.process_time()
    rate, seconds = arguments.times * peak, arguments.seconds
    told = storm(
        server.port,
        _charges(server.port),
        per_second=rate,
        seconds=seconds,
        connections=arguments.connections,
    )
    cpu = time.process_time() - cpu
    recovered = _closed(server, connections, RECOVERY_SECONDS)
    after = _closed(server, connections, arguments.peak_seconds)
    print(f"peak {_pace(after):,.0f}/s afterwards", flush=True)
    made = server.count_charges() - before
    for answers in told.answers.values():
        answers.sort()
    _tell(told, seconds, cpu)
    answered = len(told.answers.get(200, ())) + recovered.ok + after.ok
    # When time is up wrk hangs up on requests whose charges may still be made.
    if not answered <= made <= answered + told.failed + 2 * connections:
        raise Wrong(f"{answered} charges were answered, {made} are there")
    return _checks(told, peak, rate, seconds, _pace(recovered))


def _closed(server: Running, connections: int, seconds: int) -> Load:
    return wrk("spread", server.port, seconds=seconds, connections=connections)


def _pace(load: Load) -> float:
    return load.ok / load.seconds


def _charges(port: int) -> Callable[[], bytes]:
    """As the closed loop's: a key of its own for each, and any of the users."""
    head = (
        f"POST /charge HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-API-Key: {API_KEY}\r\n"
        "Content-Type: application/json\r\nIdempotency-Key: "
    ).encode()
    bodies = [
        b'{"user_id": %d, "amount": 1.00, "currency": "USD"}' % n for n in range(1, USERS + 1)
    ]
    tails = [b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body) for body in bodies]
    return lambda: b"".join((head, str(uuid_utils.uuid4()).encode(), random.choice(tails)))


def _tell(told: Storm, seconds: float, cpu: float) -> None:
    accepted, refused = told.answers.get(200, []), told.answers.get(503, [])
    slowed, usual = _by_machine(told, refused)
    print(f"{told.sent:,} sent in {seconds} s; it took the clients {cpu / seconds:.0%} of a core")
    print(f"{'ms since due':<26}{'answers':>10}{'in 50 ms':>10}{'p50':>7}{'p99':>7}{'max':>7}")
    for name, answers in (
        ("accepted", accepted),
        ("refused", refused),
        ("  machine slowed", slowed),
        ("  machine as usual", usual),
    ):
        took = _seconds(answers)
        share = bisect(took, FAST_SECONDS) / max(len(took), 1)
        ms = "".join(f"{ms_at(took, part):>7,.0f}" for part in (0.5, 0.99, 1))
        print(f"{name:<26}{len(took):>10,}{share:>10.2%}{ms}")


def _by_machine(
    told: Storm, answers: Sequence[Answer]
) -> tuple[Sequence[Answer], Sequence[Answer]]:
    """Those that were waited for while the machine itself was slowed, and the others."""
    slowed: list[Answer] = []
    usual: list[Answer] = []
    for each in answers:
        by = told.pace.slowed(each.due, each.due + each.seconds)
        (slowed if by > SLOWED else usual).append(each)
    return slowed, usual


def _seconds(answers: Sequence[Answer]) -> Sequence[float]:
    return [answer.seconds for answer in answers]


def _checks(
    told: Storm, peak: float, rate: float, seconds: float, recovered: float
) -> Sequence[Check]:
    accepted, refused = (_seconds(told.answers.get(status, [])) for status in (200, 503))
    others = sum(map(len, told.answers.values())) - len(accepted) - len(refused)
    endless = float("inf")
    return [
        Check("offered/s", told.sent / seconds, OFFERED_SHARE_MIN * rate, endless),
        Check("accepted/s", told.in_time / seconds, PACE_SHARE_MIN * peak, endless),
        Check("accepted, p99 ms", ms_at(accepted, 0.99), 0, ACCEPTED_P99_MS_MAX),
        Check("refused, p99 ms", ms_at(refused, 0.99), 0, REFUSED_P99_MS_MAX),
        Check("other answers", others, 0, 0),
        Check("failed connections", told.failed, 0, 0),
        Check(f"/s in the {RECOVERY_SECONDS} s after", recovered, PACE_SHARE_MIN * peak, endless),
    ]


def _line(check: Check) -> str:
    bounds = f"{check.least:,.0f} to {check.most:,.0f}".replace(" to inf", " or more")
    return f"{'ok   ' if check.holds else 'FAILS'} {check.what:<22}{check.found:>10,.0f}   {bounds}"


if __name__ == "__main__":
    main()
