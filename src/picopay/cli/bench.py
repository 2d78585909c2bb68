"""`picopay bench`: load on a running server, and the proof that it stayed right."""

import asyncio
from dataclasses import dataclass, field
from time import perf_counter
from typing import Annotated
from uuid import uuid4

import aiohttp
import typer
from rich.progress import Progress

from picopay.cli.context import AsJson, DataDir, show_json
from picopay.cli.errors import CommandFailed, err
from picopay.cli.http import DEFAULT_URL, Key, Url, api_key, call, client, funded

FIRST_USER = 900_000_001
AMOUNT = "0.01"
DEPOSIT = 100_000


@dataclass
class Run:
    """What was answered, and how fast; `balance` is what the users had left together."""

    seconds: float = 0
    latencies_ms: list[float] = field(default_factory=list[float])
    charged: int = 0
    refused: dict[str, int] = field(default_factory=dict[str, int])


def bench(
    url: Url = DEFAULT_URL,
    key: Key = None,
    connections: Annotated[int, typer.Option(min=1, max=1000)] = 64,
    seconds: Annotated[int, typer.Option(min=1, max=600)] = 10,
    users: Annotated[int, typer.Option(min=1, max=10_000, help="1: all hit one account.")] = 100,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Charge as fast as the server answers; then prove that every balance is exact.

    The load generator shares the machine with the server: figures of one machine only compare
    with figures of the same. Example: `picopay bench --connections 64 --seconds 10`
    """
    run = asyncio.run(_bench(url, api_key(key, data_dir), connections, seconds, users))
    report = _report(run)
    if as_json:
        show_json(report)
    else:
        for name, value in report.items():
            print(f"{name:<16} {value}")


async def _bench(url: str, key: str, connections: int, seconds: int, users: int) -> Run:
    ids = range(FIRST_USER, FIRST_USER + users)
    async with client(url, key, connections) as session:
        with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
            funding = progress.add_task("Funding users", total=users)
            for user_id in ids:
                await funded(session, user_id, DEPOSIT)
                progress.advance(funding)
            before = await _balances(session, ids)
            charging = progress.add_task(f"Charging for {seconds} s", total=None)
            run = await _charge(session, ids, connections, seconds)
            progress.remove_task(charging)
        await _prove(session, ids, before, run)
    return run


async def _charge(
    session: aiohttp.ClientSession, ids: range, connections: int, seconds: int
) -> Run:
    run = Run()
    started = perf_counter()

    async def caller(number: int) -> None:
        turn = number
        while perf_counter() - started < seconds:
            body = {"user_id": ids[turn % len(ids)], "amount": AMOUNT, "currency": "USD"}
            turn += connections + 1
            sent = perf_counter()
            status, answer, _ = await call(session, "/charge", body, str(uuid4()))
            run.latencies_ms.append((perf_counter() - sent) * 1000)
            if status == 200:
                run.charged += 1
            else:
                code = str(answer.get("code", status))
                run.refused[code] = run.refused.get(code, 0) + 1

    await asyncio.gather(*(caller(n) for n in range(connections)))
    run.seconds = perf_counter() - started
    return run


async def _balances(session: aiohttp.ClientSession, ids: range) -> int:
    """Of all users together, in cents."""
    cents = 0
    for user_id in ids:
        async with session.get(f"/v1/users/{user_id}") as response:
            for balance in (await response.json())["balances"]:
                cents += round(balance["balance"] * 100)
    return cents


async def _prove(session: aiohttp.ClientSession, ids: range, before: int, run: Run) -> None:
    """A wrong run has no speed."""
    after = await _balances(session, ids)
    if before - after != run.charged:
        raise CommandFailed(
            f"the run is wrong: {run.charged} charges of {AMOUNT} were answered 200, "
            f"but the balances went down by {before - after} cents"
        )


def _report(run: Run) -> dict[str, object]:
    ordered = sorted(run.latencies_ms)

    def percentile(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2)

    return {
        "charges": run.charged,
        "charges_per_s": round(run.charged / run.seconds, 1),
        "p50_ms": percentile(0.50),
        "p95_ms": percentile(0.95),
        "p99_ms": percentile(0.99),
        "max_ms": round(ordered[-1], 2),
        "refused": run.refused or "none",
        "balances": "exact",
    }
