"""A real server that payment callbacks are sent to: it checks them, fails, hangs and refuses."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web
from tests.processes import free_port

from picopay.kernel import signing
from picopay.kernel.signing import Reason, Scheme

PATH = "/payments/callback"
BODY_FIELDS = ["payment_id", "order_id", "status"]


class Received(NamedTuple):
    """`at` is of the monotonic clock."""

    told: dict[str, Any]
    body: bytes
    at: float
    answered: int


class Receiver:
    """Answers as `answers` says, one after the other, then 200; None hangs up without a word."""

    def __init__(self, secret: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.answers: list[int | None] = []
        self.hangs = asyncio.Event()
        self.hangs.set()
        self.received: list[Received] = []
        self.forged = 0
        self._secret = secret
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post(PATH, self._take)
        app.router.add_post("/elsewhere", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        """Further calls are refused; `start` listens on the same port again."""
        self.hangs.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        verdict = signing.verify(Scheme.HEX, body, request.raw_headers, [self._secret], time.time())
        if verdict.reason is not Reason.VALID:
            self.forged += 1
            return web.Response(status=401)
        answer = self.answers.pop(0) if self.answers else 200
        told = json.loads(body)
        assert list(told) == BODY_FIELDS
        self.received.append(Received(told, body, time.monotonic(), answer or 0))
        await self.hangs.wait()
        if answer is None:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return web.Response(status=answer)

    def statuses(self, payment_id: str) -> Counter[str]:
        """What was told of a payment, and how often."""
        return Counter(
            each.told["status"] for each in self.received if each.told["payment_id"] == payment_id
        )

    async def has(self, calls: int, seconds: float = 10) -> None:
        """Wait for so many calls."""
        give_up_at = time.monotonic() + seconds
        while len(self.received) < calls:
            assert time.monotonic() < give_up_at, f"{len(self.received)} of {calls} calls came"
            await asyncio.sleep(0.01)


@asynccontextmanager
async def receiving(secret: str) -> AsyncGenerator[Receiver]:
    receiver = Receiver(secret)
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()
    assert receiver.forged == 0, "a callback was not signed as it should be"
