"""`picopay demo`: the story of exactly-once, told on a running server."""

import asyncio
import secrets
from collections.abc import Mapping
from time import monotonic
from typing import Final
from uuid import uuid4

import aiohttp
from rich.console import Console

from picopay.cli.context import DataDir
from picopay.cli.errors import CommandFailed
from picopay.cli.http import DEFAULT_URL, Key, Url, admin_secret, api_key, call, client, funded

PROCESSED_SECONDS_MAX: Final = 90
PAID_SECONDS_MAX: Final = 20
POLL_SECONDS: Final = 0.2
_REFUSED: Final = 401
_NO_PAYER: Final = 422  # with PAYMENT_PROVIDER=wallet an order names who pays
_console = Console(highlight=False)


def demo(url: Url = DEFAULT_URL, key: Key = None, data_dir: DataDir = None) -> None:
    """Tell, on a running server: charges, duplicates, refusals, orders, and a transaction webhook.

    The webhook is processed after the server's delay, 30 seconds unless it is set otherwise.

    Example: `picopay demo --url http://127.0.0.1:8000`
    """
    asyncio.run(_demo(url, api_key(key, data_dir), admin_secret(data_dir)))


async def _demo(url: str, key: str, admin: str | None) -> None:
    user_id = 1_000_000 + secrets.randbelow(10**9)
    async with client(url, key, 32) as session:
        await funded(session, user_id, 1000)
        _say(f"A new user, {user_id}, has deposited 1000.00 USD.")
        await _charge_twice(session, user_id)
        await _ten_at_once(session, user_id)
        await _refusals(session, user_id)
        whole = [await _shop(session, admin, user_id), await _webhook(session)]
    told = "Every step was" if all(whole) else "What was shown is"
    _console.print(f"\n[green]{told} as promised.[/green] Now try `picopay ledger check`.")


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
    _expect(status == 422 and named == ["amount"], f"422 {problem.get('code')}, differing: amount")


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


async def _shop(session: aiohttp.ClientSession, admin: str | None, user_id: int) -> bool:
    """Whether it was shown."""
    if admin is None:
        _say("Orders are left out: set ADMIN_SECRET, or give the server's --data-dir.")
        return False
    secret = {"X-Admin-Secret": admin}
    product = {"name": "Demo mug", "price": "20.00", "stock": 2, "is_active": True}
    async with session.post("/admin/products", json=product, headers=secret) as response:
        if response.status == _REFUSED:
            raise CommandFailed("the admin secret is not the server's: set ADMIN_SECRET to its own")
        _say("A product of the shop.")
        _expect(response.status == 201, "two mugs at 20.00")
        path = f"/admin/products/{(await response.json())['id']}"
    order = await _order_of_one(session, path.rpartition("/")[2], user_id)
    _say("An order of one mug, sent ten times with one key.")
    paid = await _ordered(session, order, times=10)
    _say("An order of the last mug, which its customer cancels.")
    canceled = await _ordered(session, order, times=1)
    async with session.post(f"/orders/{canceled}/cancel") as response:
        _expect(response.status in {200, 409}, f"canceled: {response.status}")
    with _console.status("  their payments are settled …"):
        ended = [await _ended(session, order_id) for order_id in (paid, canceled)]
    for order_id in (paid, canceled):
        async with session.get(f"/orders/{order_id}/events") as response:
            story = " → ".join(entry["event"] for entry in (await response.json())["data"])
        _console.print(f"  [dim]{story}[/dim]")
    async with session.get(path, headers=secret) as response:
        left = (await response.json())["stock"]
    kept = len(ended) - ended.count("canceled")
    if kept > ended.count("paid"):
        _console.print(
            "  [yellow]-[/yellow] nobody has paid: a signed callback would, or its absence"
        )
    _expect(left == 2 - kept, f"{' and '.join(ended)}: in stock {left} of 2")
    return True


async def _order_of_one(
    session: aiohttp.ClientSession, product_id: str, user_id: int
) -> dict[str, object]:
    """An order's body. Whether it names who pays is asked with an order of more than there is."""
    key = str(uuid4())
    line = {"product_id": product_id, "quantity": 1000}
    body = {"user_email": f"{key}@example.com", "items": [line]}
    status, _, _ = await call(session, "/orders", body, key)
    pays = {"user_id": user_id} if status == _NO_PAYER else {}
    return {"items": [{**line, "quantity": 1}], **pays}


async def _ordered(session: aiohttp.ClientSession, order: Mapping[str, object], times: int) -> str:
    """The one order that so many requests with one key have placed."""
    key = str(uuid4())
    body = {"user_email": f"{key}@example.com", **order}
    answers = await asyncio.gather(*(call(session, "/orders", body, key) for _ in range(times)))
    ids = {str(answer.get("id")) for status, answer, _ in answers if status == 201}
    replays = sum(replayed for *_, replayed in answers)
    replayed = f"; {replays} answers are replays" if times > 1 else ""
    _expect(len(ids) == 1 and replays == times - 1, f"one order{replayed}")
    return ids.pop()


async def _ended(session: aiohttp.ClientSession, order_id: str) -> str:
    """Its status when it is closed, or when patience has run out."""
    give_up_at = monotonic() + PAID_SECONDS_MAX
    while True:
        async with session.get(f"/orders/{order_id}") as response:
            status = (await response.json())["status"]
        if status in {"paid", "canceled"} or monotonic() > give_up_at:
            return status
        await asyncio.sleep(POLL_SECONDS)


async def _webhook(session: aiohttp.ClientSession) -> bool:
    """Whether it was shown."""
    path = "/v1/webhooks/transactions"
    name = uuid4().hex
    body = {
        "transaction_id": f"txn_{name}",
        "source_account": f"payer_{name}",
        "destination_account": f"payee_{name}",
        "amount": 15.5,
        "currency": "EUR",
    }
    _say("A transaction webhook of 15.50 EUR, which its sender repeats ten times.")
    answers = await asyncio.gather(*(call(session, path, body) for _ in range(10)))
    if {status for status, *_ in answers} == {401}:
        _console.print("  [yellow]-[/yellow] the server asks for signatures, so this is left out")
        return False
    _expect({status for status, *_ in answers} == {202}, "202 each time, at once")
    _say("It is processed after the server's delay: 30 seconds, unless that is set otherwise.")
    with _console.status("  waiting …"):
        shown = await _processed(session, body["transaction_id"])
    _expect(shown == "PROCESSED", f"processed in the background: {shown}")
    async with session.get(f"/v1/accounts/external:payee_{name}") as response:
        balances = (await response.json())["balances"]
    _expect(balances == [{"currency": "EUR", "balance": 15.5}], "the payee has 15.50, once")
    return True


async def _processed(session: aiohttp.ClientSession, transaction_id: object) -> str:
    """Its status in the end, or when patience has run out."""
    give_up_at = monotonic() + PROCESSED_SECONDS_MAX
    while True:
        async with session.get(f"/v1/transactions/{transaction_id}") as response:
            status = (await response.json())["status"]
        if status != "PROCESSING" or monotonic() > give_up_at:
            return status
        await asyncio.sleep(POLL_SECONDS)


def _say(line: str) -> None:
    _console.print(f"\n[bold]{line}[/bold]")


def _expect(holds: bool, told: str) -> None:
    if not holds:
        raise CommandFailed(f"not as promised: {told}")
    _console.print(f"  [green]✓[/green] {told}")
