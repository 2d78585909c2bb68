"""A payment provider that takes no time: it answers, and calls back at once, signed."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import orjson
from aiohttp import ClientSession, web

SECRET: Final = "of-this-benchmark"


class Provider:
    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self._made: dict[str, str] = {}
        self._telling: set[asyncio.Task[None]] = set()

    async def post_payment(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        if key not in self._made:
            self._made[key] = f"payment-{len(self._made)}"
            order_id = orjson.loads(await request.read())["order_id"]
            telling = asyncio.create_task(self._tell(self._made[key], order_id))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)
        return web.json_response({"payment_id": self._made[key], "status": "pending"})

    async def _tell(self, payment_id: str, order_id: str) -> None:
        told = {"payment_id": payment_id, "order_id": order_id, "status": "success"}
        body = orjson.dumps(told)
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Signature": signature, "Content-Type": "application/json"}
        async with self._session.post("/payments/callback", data=body, headers=headers) as answer:
            answer.raise_for_status()


@asynccontextmanager
async def providing(port: int, server_port: int) -> AsyncGenerator[None]:
    """While it is there, on its port, for the PicoPay on the other."""
    async with ClientSession(f"http://127.0.0.1:{server_port}") as session:
        app = web.Application()
        app.router.add_post("/_fake_payments", Provider(session).post_payment)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield
        finally:
            await runner.cleanup()
