"""SIGKILL of a server whose fake payments are not told yet: the next one tells them all."""

import signal
from collections import Counter
from typing import Any

import httpx2
import pytest
from tests.processes import Server, Site
from tests.receivers import PATH, receiving

pytestmark = pytest.mark.kill

SECRET = "whsec_kept-through-restarts"
PAYMENTS = 20
QUICK = {
    "PAYMENT_WEBHOOK_SECRET": SECRET,
    "OUTBOX_LEASE_SECONDS": "1",
    "OUTBOX_RETRY_BASE_DELAY_SECONDS": "0.1",
    "LOG_LEVEL": "INFO",
}


async def ask(server: Server, url: str, **knobs: object) -> list[str]:
    """The ids of that many payments, made under keys."""
    async with httpx2.AsyncClient(base_url=server.url, timeout=30) as client:
        return [(await _made(client, n, url, knobs))["payment_id"] for n in range(PAYMENTS)]


async def _made(
    client: httpx2.AsyncClient, number: int, url: str, knobs: dict[str, object]
) -> dict[str, Any]:
    body = {"order_id": f"order-{number}", "amount": 1, "callback_url": url + PATH, **knobs}
    headers = {"Idempotency-Key": f"key-{number}"}
    answer = await client.post("/_fake_payments", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ends(server: Server, ids: list[str]) -> dict[str, str]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=30) as client:
        return {
            payment_id: (await client.get(f"/_fake_payments/{payment_id}")).json()["status"]
            for payment_id in ids
        }


async def test_payments_survive_a_killed_server_and_are_told_as_they_were_decided(
    site: Site,
) -> None:
    """Decided at a rate of one half, told after a restart at a rate of nought."""
    server = site.serve(environment=QUICK | {"FAKE_PAYMENT_SUCCESS_RATE": "0.5"})
    async with receiving(SECRET) as receiver:
        ids = await ask(server, receiver.url, delay_seconds=4)
        server.stop(signal.SIGKILL)
        assert receiver.received == []
        server.start({"FAKE_PAYMENT_SUCCESS_RATE": "0"})
        assert await ask(server, receiver.url) == ids
        await receiver.has(PAYMENTS, seconds=30)
        decided = await ends(server, ids)
        assert {i: dict(receiver.statuses(i)) for i in ids} == {i: {decided[i]: 1} for i in ids}
    assert set(decided.values()) == {"success", "failed"}  # but for one run in 500,000


async def test_a_callback_under_way_when_the_server_is_killed_is_sent_again(site: Site) -> None:
    server = site.serve(environment=QUICK | {"FAKE_PAYMENT_SUCCESS_RATE": "1"})
    async with receiving(SECRET) as receiver:
        receiver.hangs.clear()
        ids = await ask(server, receiver.url, delay_seconds=0)
        await receiver.has(4)
        server.stop(signal.SIGKILL)
        before = Counter(call.told["payment_id"] for call in receiver.received)
        receiver.hangs.set()
        server.start()
        await receiver.has(PAYMENTS + before.total(), seconds=30)
        after = Counter(call.told["payment_id"] for call in receiver.received)
    assert after - before == Counter(ids)
    assert SECRET not in server.log.read_text()
