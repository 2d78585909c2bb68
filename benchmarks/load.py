"""Load on a running server: by wrk for single charges, by aiohttp for set-up and batches."""

import asyncio
import json
import os
import resource
import subprocess
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import ClientSession, ClientTimeout, TCPConnector
from contestants import API_KEY, HERE, USERS, Running, Wrong

CLIENTS: Final = 64
DEPOSIT: Final = "10000000000.00"  # of each user, in USD


class Post(NamedTuple):
    path: str
    body: bytes
    key: str | None = None


@dataclass(frozen=True)
class Load:
    """What a client saw."""

    ok: int
    non_2xx: int
    socket_errors: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    client_cpu_seconds: float


def wrk(
    script: str,
    port: int,
    *,
    seconds: int,
    connections: int,
    extra: Mapping[str, str] | None = None,
) -> Load:
    """One thread: two would take from the server what they measure."""
    environment = {**os.environ, "BENCH_API_KEY": API_KEY, **(extra or {})}
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command = ["wrk", *options, "-s", HERE / "wrk" / f"{script}.lua"]
    before = _cpu_of_ended_children()
    ended = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"],
        env=environment, capture_output=True, text=True, check=True, timeout=seconds + 60,
    )  # fmt: skip
    cpu = _cpu_of_ended_children() - before
    lines = [line for line in ended.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"wrk told no result:\n{ended.stdout}{ended.stderr}")
    told: dict[str, float] = json.loads(lines[0].removeprefix("RESULT "))
    refused = int(told["non_2xx"])
    return Load(
        ok=int(told["answers"]) - refused,
        non_2xx=refused,
        socket_errors=int(sum(told[name] for name in ("connect", "read", "write", "timeout"))),
        seconds=told["seconds"],
        p50_ms=told["p50_ms"],
        p90_ms=told["p90_ms"],
        p99_ms=told["p99_ms"],
        max_ms=told["max_ms"],
        client_cpu_seconds=cpu,
    )


def _cpu_of_ended_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def create_users(server: Running, *, clients: int = CLIENTS) -> None:
    """By PicoPay's own API: all users, then all deposits."""
    numbers = range(1, USERS + 1)
    post_all(server.port, [Post("/v1/users", b'{"id": %d}' % n) for n in numbers], clients=clients)
    deposit = b'{"amount": %s, "currency": "USD"}' % DEPOSIT.encode()
    post_all(
        server.port,
        [Post(f"/v1/users/{n}/deposits", deposit, str(uuid.uuid4())) for n in numbers],
        clients=clients,
    )


def charge_keys(server: Running, file: Path) -> None:
    """Charge every user once, and write the keys in the order of the users: replay.lua's food."""
    keys = [str(uuid.uuid4()) for _ in range(USERS)]
    body = '{"user_id": %d, "amount": 1.00, "currency": "USD"}'
    posts = [Post("/charge", (body % user).encode(), key) for user, key in enumerate(keys, start=1)]
    post_all(server.port, posts)
    file.write_text("\n".join(keys) + "\n")


def post_all(
    port: int, posts: Sequence[Post], *, clients: int = CLIENTS
) -> tuple[list[bytes], Load]:
    """Send all, so many at once; any refusal ends the benchmark."""
    cpu, began = time.process_time(), time.monotonic()
    answers, latencies = asyncio.run(_post_all(port, posts, clients))
    seconds = time.monotonic() - began
    latencies.sort()

    cpu = time.process_time() - cpu
    p50, p90, p99, most = (ms_at(latencies, share) for share in (0.5, 0.9, 0.99, 1))
    load = Load(len(answers), 0, 0, seconds, p50, p90, p99, most, cpu)
    return answers, load


def ms_at(latencies: Sequence[float], share: float) -> float:
    """What so large a share of them took at most, in milliseconds; they are seconds, sorted."""
    if not latencies:
        return 0.0
    return latencies[min(int(share * len(latencies)), len(latencies) - 1)] * 1e3


async def _post_all(
    port: int, posts: Iterable[Post], clients: int
) -> tuple[list[bytes], list[float]]:
    waiting = iter(posts)
    answers: list[bytes] = []
    latencies: list[float] = []

    async def client() -> None:
        for post in waiting:
            key = {"Idempotency-Key": post.key} if post.key else {}
            began = time.monotonic()
            async with session.post(post.path, data=post.body, headers=key) as answer:
                content = await answer.read()
            latencies.append(time.monotonic() - began)
            if answer.status >= 300:
                raise Wrong(f"{post.path} answered {answer.status}: {content[:500]!r}")
            answers.append(content)

    headers = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
    async with ClientSession(
        f"http://127.0.0.1:{port}",
        headers=headers,
        connector=TCPConnector(limit=clients),
        timeout=ClientTimeout(total=60),
    ) as session:
        # Not a TaskGroup, which would wrap what went wrong.
        await asyncio.gather(*(client() for _ in range(clients)))
    return answers, latencies
