"""`picopay demo`: the story of exactly-once, told on a running server."""

import asyncio
import secrets
from uuid import uuid4

import aiohttp
from rich.console import Console

from picopay.cli.context import CommandFailed, DataDir
from picopay.cli.http import DEFAULT_URL, Key, Url, api_key, call, client, funded

_console = Console(highlight=False)


def demo(url: Url = DEFAULT_URL, key: Key = None, data_dir: DataDir = None) -> None:
    """Tell, on a running server: a charge, its duplicate, ten at once, a reused key, no funds.

    Example: `picopay demo --url http://127.0.0.1:8000`
    """
    asyncio.run(_demo(url, api_key(key, data_dir)))


async def _demo(url: str, key: str) -> None:
    user_id = 1_000_000 + secrets.randbelow(10**9)
    async with client(url, key, 32) as session:
        _say(f"A new user, {user_id}, deposits 1000.00 USD.")
        await funded(session, user_id, 1000)
        await _charge_twice(session, user_id)
        await _ten_at_once(session, user_id)
        await _refusals(session, user_id)
    _console.print("\n[green]Every step was as promised.[/green] Now try `picopay ledger check`.")


async def _charge_twice(session: aiohttp.ClientSession, user_id: int) -> None:
    body = {"user_id": user_id, "amount": 100, "currency": "USD"}
    key = str(uuid4())
    _say("A charge of 100.00, with an idempotency key.")
    status, first, _ = await call(session, "/charge", body, key)
    _expect(status == 200 and first["new_balance"] == 900, "200, the balance is 900.00")
    _say("The answer got lost, so the client sends it again.")
    status, again, replayed = await call(session, "/charge", body, key)
    _expect(status == 200 and again == first and replayed, "the same answer, nothing charged")
    _say("The same key for another amount.")
    status, problem, _ = await call(session, "/charge", {**body, "amount": 200}, key)
    named = problem.get("mismatched_fields")
    _expect(status == 422 and named == ["amount"], f"422 {problem.get('code')}, differing: {named}")


async def _ten_at_once(session: aiohttp.ClientSession, user_id: int) -> None:
    body = {"user_id": user_id, "amount": 50, "currency": "USD"}
    key = str(uuid4())
    _say("Ten identical charges of 50.00 at the same moment, one key.")
    answers = await asyncio.gather(*(call(session, "/charge", body, key) for _ in range(10)))
    ids = {answer["transaction"]["id"] for status, answer, _ in answers if status == 200}
    replays = sum(replayed for *_, replayed in answers)
    _expect(len(ids) == 1 and replays == 9, "all answered 200 with one charge; nine are replays")


async def _refusals(session: aiohttp.ClientSession, user_id: int) -> None:
    _say("A charge of 5000.00, which the balance does not cover.")
    body = {"user_id": user_id, "amount": 5000, "currency": "USD"}
    status, problem, _ = await call(session, "/charge", body, str(uuid4()))
    _expect(status == 400, f"400 {problem.get('code')}: {problem.get('detail')}")
    async with session.get(f"/v1/users/{user_id}") as response:
        balances = (await response.json())["balances"]
    _expect(balances == [{"currency": "USD", "balance": 850}], "the balance is 850.00, to the cent")


def _say(line: str) -> None:
    _console.print(f"\n[bold]{line}[/bold]")


def _expect(holds: bool, told: str) -> None:
    if not holds:
        raise CommandFailed(f"not as promised: {told}")
    _console.print(f"  [green]✓[/green] {told}")
