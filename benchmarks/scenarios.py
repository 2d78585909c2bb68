"""What is measured, and how each run is checked: a wrong run has no speed."""

import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, Self

import orjson
from children import busy_seconds, cpu_seconds, rss_bytes
from contestants import USERS, Contestant, Running, Wrong, check_money, checkpoint, running
from load import Load, Post, charge_keys, post_all, wrk
from servers import Servers

WARM_UP_SECONDS: Final = 2
BATCH_CLIENTS: Final = 4


@dataclass(frozen=True)
class Plan:
    seconds: int
    rounds: int
    connections: int
    batch_charges: int
    batch_size: int
    growth_charges: int
    memory_charges: int


@dataclass(frozen=True)
class Run:
    """One measurement, with the CPU time that each party spent on a charge."""

    scenario: str
    contestant: str
    charges: int
    seconds: float
    load: Load
    server_cpu_us: float
    postgres_cpu_us: float
    client_cpu_us: float
    elsewhere_cores: float  # what Valkey, the kernel and strangers used: much spoils the run

    @property
    def per_second(self) -> float:
        return self.charges / self.seconds

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"per_second": self.per_second}


@contextmanager
def checked(servers: Servers, contestant: Contestant) -> Generator[Running]:
    """A running server; the money is checked while it still runs, as an operator would."""
    with running(servers, contestant) as server:
        yield server
        check_money(servers, contestant)


def by_wrk(server: Running, scenario: str, plan: Plan, *, script: str | None = None) -> Run:
    """Spread, hot or replay: warm up, measure, and compare the answers with the rows."""
    script = script or scenario
    extra: dict[str, str] = {}
    if script == "replay":
        keys = server.servers.folder / "replay-keys"
        charge_keys(server, keys)
        extra["BENCH_KEYS"] = str(keys)
    wrk(script, server.port, seconds=WARM_UP_SECONDS, connections=plan.connections, extra=extra)
    before = _settled_count(server)
    checkpoint(server.servers)
    before_cpu = _Cpu.now(server)
    load = wrk(script, server.port, seconds=plan.seconds, connections=plan.connections, extra=extra)
    cpu = _Cpu.now(server).since(before_cpu)
    made = _settled_count(server) - before
    # When time is up wrk hangs up on requests whose charges may still be made.
    expected = (0, 0) if script == "replay" else (load.ok, load.ok + plan.connections)
    _compare(f"{scenario}, {server.contestant.name}", made, expected)
    return _run(scenario, server, load.ok, load, cpu)


def by_batches(server: Running, plan: Plan) -> Run:
    """Bodies are made before and answers read after the clock runs: the client costs little."""
    posts = list(_batches(plan.batch_charges, plan.batch_size))
    post_all(server.port, list(_batches(plan.batch_size, plan.batch_size)))
    before = _settled_count(server)
    checkpoint(server.servers)
    before_cpu = _Cpu.now(server)
    answers, load = post_all(server.port, posts, clients=BATCH_CLIENTS)
    cpu = _Cpu.now(server).since(before_cpu)
    results = [result for answer in answers for result in orjson.loads(answer)["results"]]
    succeeded = sum(result["status"] == "success" for result in results)
    made = _settled_count(server) - before
    _compare(f"batch, {server.contestant.name}", made, (plan.batch_charges, plan.batch_charges))
    _compare(f"batch answers, {server.contestant.name}", succeeded, (made, made))
    return _run("batch", server, succeeded, load, cpu)


def _batches(charges: int, size: int) -> Iterator[Post]:
    for first in range(0, charges, size):
        items = [
            {
                "user_id": n % USERS + 1,
                "amount": 1.0,
                "currency": "USD",
                "idempotency_key": str(uuid.uuid4()),
            }
            for n in range(first, min(first + size, charges))
        ]
        yield Post("/v1/charges/batch", orjson.dumps({"charges": items}))


def memory(server: Running, plan: Plan, *, steps: int = 10) -> list[tuple[int, int]]:
    """(charges made so far, resident bytes of the server's processes), about `steps` times."""
    start = server.count_charges()
    samples = [(0, rss_bytes(server.pid))]
    step = plan.memory_charges // steps
    while (done := samples[-1][0]) < plan.memory_charges:
        target = (done // step + 1) * step
        while (made := server.count_charges() - start) < target:
            load = wrk("spread", server.port, seconds=2, connections=plan.connections)
            if load.ok == 0:
                raise Wrong("memory: no charge succeeds")
        samples.append((made, rss_bytes(server.pid)))
    return samples


class _Cpu(NamedTuple):
    """CPU seconds so far: the server's, PostgreSQL's, everybody's."""

    server: float
    postgres: float
    everybody: float

    @classmethod
    def now(cls, server: Running) -> Self:
        postgres = cpu_seconds(server.servers.postgres_pid)
        return cls(cpu_seconds(server.pid), postgres, busy_seconds())

    def since(self, before: "_Cpu") -> "_Cpu":
        return _Cpu(*(now - then for now, then in zip(self, before, strict=True)))


def _run(scenario: str, server: Running, charges: int, load: Load, cpu: _Cpu) -> Run:
    name = server.contestant.name
    if charges == 0:
        raise Wrong(f"{scenario}, {name}: nothing succeeded ({load})")
    ours = cpu.server, cpu.postgres, load.client_cpu_seconds
    elsewhere = max(cpu.everybody - sum(ours), 0) / load.seconds
    server_us, postgres_us, client_us = (seconds / charges * 1e6 for seconds in ours)
    costs = (server_us, postgres_us, client_us, elsewhere)
    return Run(scenario, name, charges, load.seconds, load, *costs)


def _settled_count(server: Running) -> int:
    """The charges in the database, once those still in flight have landed."""
    count = server.count_charges()
    while True:
        time.sleep(0.3)
        before, count = count, server.count_charges()
        if before == count:
            return count


def _compare(what: str, found: int, expected: tuple[int, int]) -> None:
    low, high = expected
    if not low <= found <= high:
        raise Wrong(f"{what}: {found} where {low} to {high} were expected")
