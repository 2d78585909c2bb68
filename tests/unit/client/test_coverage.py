"""Both clients offer the same, and together with what is left out on purpose, all of the API."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from picopay.client.aio import AsyncClient
from picopay.client.calls import charges, orders, products, transactions, users
from picopay.client.calls import operations as ops
from picopay.client.model import NewTransaction
from picopay.client.sync import Client
from picopay.client.wire import Call

DOCUMENT = json.loads((Path(__file__).parents[2] / "api/openapi.json").read_text())
CALLS: list[Call[object]] = [
    charges.create(user_id=1, amount=1, currency="USD"),
    charges.batch([]),
    charges.get("c"),
    charges.list_all().first,
    charges.refund("c"),
    charges.refunds("c").first,
    users.create(1),
    users.get(1),
    users.deposit(1, amount=1, currency="USD"),
    users.entries(1).first,
    users.get_account("o"),
    users.account_entries("o").first,
    orders.place(user_email="a@b", items=[]),
    orders.get("o"),
    orders.events("o"),
    orders.cancel("o"),
    orders.list_all().first,
    orders.refunds().first,
    orders.book_refund("o", "p"),
    products.list_all().first,
    products.get("p"),
    products.get_any("p"),
    products.create(name="n", price=1),
    products.update("p"),
    products.archive("p"),
    transactions.send(NewTransaction("t", "a", "b", 1, "USD")),
    transactions.get("t"),
    transactions.list_all().first,
    ops.health(),
    ops.list_dead_letters().first,
    ops.get_dead_letter("d"),
    ops.replay([], note="n"),
    ops.discard([], note="n"),
]
# For payment providers, for probes and scrapers, and for who develops.
LEFT_OUT = {
    "POST /payments/callback",
    "POST /_fake_payments",
    "GET /_fake_payments/{payment_id}",
    "POST /_fake_payments/{payment_id}/refunds",
    "GET /",
    "GET /health",
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
    "GET /problems/{code}",
}


def test_the_whole_api_is_covered_or_left_out_on_purpose() -> None:
    covered = {next(_documented(call)) for call in CALLS}
    offered = {
        f"{method.upper()} {path}" for path, of in DOCUMENT["paths"].items() for method in of
    }
    assert covered | LEFT_OUT == offered
    assert not covered & LEFT_OUT


def _documented(call: Call[object]) -> Iterator[str]:
    """The operations that a call may be, those without parameters in their path first."""
    for path in sorted(DOCUMENT["paths"], key=lambda path: path.count("{")):
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), call.path):
            yield f"{call.method} {path}"


def test_every_parameter_of_a_list_is_known_to_it() -> None:
    for call in CALLS:
        _, path = next(_documented(call)).split(" ")
        known = DOCUMENT["paths"][path][call.method.lower()].get("parameters", [])
        named = {each["name"] for each in known if each["in"] == "query"} - {"cursor"}
        assert set(call.params) == named, call.path


async def test_both_clients_do_the_same_calls() -> None:
    client = Client("http://h")
    other = AsyncClient("http://h")
    offered, offered_too = dict(_offered(client)), dict(_offered(other))
    await other.close()
    client.close()
    assert offered == offered_too
    assert len(offered) == len(CALLS)


def _offered(client: object) -> Iterator[tuple[str, object]]:
    """(name, the function that describes it) of everything that a client can do."""
    groups: dict[str, Any] = vars(client)
    for name, group in groups.items():
        if name.startswith("_"):
            continue
        does = cast("dict[str, Any]", {"": group} if callable(group) else vars(group))
        for operation, do in does.items():
            yield f"{name}.{operation}", do.__wrapped__


def test_it_needs_nothing_of_the_server() -> None:
    program = """
import sys, picopay.client.sync, picopay.client.aio, picopay.client.webhooks
ours = {m for m in sys.modules if m.startswith("picopay.")}
assert {m.split(".")[1] for m in ours} == {"client", "kernel"}, ours
heavy = {"fastapi", "starlette", "pydantic", "sqlalchemy", "asyncpg", "redis", "orjson", "typer"}
assert not heavy & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
