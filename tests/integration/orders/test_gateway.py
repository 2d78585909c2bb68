"""What the payment provider is asked, on the wire."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from tests.processes import free_port

from picopay.infra.http import Http
from picopay.infra.ids import new_id
from picopay.kernel.money import Money
from picopay.orders.gateway import Gateway, ProviderFailed
from picopay.outbox.errors import Permanent

Asked = list[str]
NAMES: list[object] = ["pay_1"]  # what the provider calls payments: the last of them


@pytest.fixture
async def asked() -> Asked:
    return []


@pytest.fixture
async def gateway(asked: Asked) -> AsyncIterator[Gateway]:
    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.raw_path}")
        return web.json_response({"status": "refunded", "payment_id": NAMES[-1]})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    http = Http()
    yield Gateway(http, f"http://127.0.0.1:{port}/payments")
    await http.close()
    await runner.cleanup()


@pytest.mark.parametrize(
    ("payment_id", "name"),
    [
        ("01a2-b", "01a2-b"),
        ("x/../another/refunds?", "x%2F..%2Fanother%2Frefunds%3F"),
        ("50%#1", "50%25%231"),
        ("a+b", "a%2Bb"),
    ],
)
async def test_a_payments_id_names_nothing_else(
    gateway: Gateway, asked: Asked, payment_id: str, name: str
) -> None:
    await gateway.standing(payment_id)
    await gateway.refund(payment_id)
    assert asked == [f"GET /payments/{name}", f"POST /payments/{name}/refunds"]


@pytest.mark.parametrize("payment_id", [".", ".."])
async def test_a_path_is_no_payments_id(gateway: Gateway, asked: Asked, payment_id: str) -> None:
    for ask in (gateway.standing, gateway.refund):
        with pytest.raises(Permanent):
            await ask(payment_id)
    assert asked == []


@pytest.mark.parametrize("name", [None, "", 7, ["pay_1"], "a b", "a\0b", "x" * 151, "p\u00e4y"])
async def test_what_no_callback_could_name_is_no_payments_id(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, name: object
) -> None:
    assert await gateway.create_payment(new_id(), Money(250, "USD")) == "pay_1"
    monkeypatch.setattr("tests.integration.orders.test_gateway.NAMES", [name])
    with pytest.raises(ProviderFailed):
        await gateway.create_payment(new_id(), Money(250, "USD"))
