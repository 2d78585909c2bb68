"""Redis (or Valkey), which only makes things faster: never waited for long, never needed.

`Fast` wraps each call with a time budget and a breaker. After a failure nobody waits for Redis
again until a probe in the background finds it answering.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from picopay.infra import metrics
from picopay.infra.logs import log

T = TypeVar("T")

PROBE_EVERY_SECONDS: Final = 0.5
CONNECTIONS_MAX: Final = 16
# The client's own limit, in budgets: it ends what ours did not.
_SOCKET_BUDGETS: Final = 4
# To read and hand on what has arrived already.
_LOOK_SECONDS: Final = 0.005


class Fast:
    """Calls to Redis that give up after `budget_seconds` and then leave it alone for a while."""

    def __init__(self, url: str, *, budget_seconds: float) -> None:
        self._redis: Redis = Redis.from_url(  # pyright: ignore[reportUnknownMemberType] - its own **kwargs
            url,
            socket_timeout=_SOCKET_BUDGETS * budget_seconds,
            socket_connect_timeout=_SOCKET_BUDGETS * budget_seconds,
            max_connections=CONNECTIONS_MAX,
            retry=Retry(NoBackoff(), 0),
        )
        self.budget_seconds = budget_seconds
        self._probe: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        return self._probe is None

    async def call(
        self, work: Callable[["Redis"], Awaitable[T]], *, spent_seconds: float = 0.0
    ) -> T | None:
        """The result of `work`, or None when Redis is away, slow or answers with an error.

        `spent_seconds` of the budget have passed already, waiting for an earlier call.
        """
        if not self.available:
            return None
        try:
            async with _within(self.budget_seconds - spent_seconds):
                return await work(self._redis)
        except ResponseError as error:
            # It answers, if only to refuse, as a full one refuses writes: no reason to stay away.
            log.debug("redis.refused", error=str(error))
            return None
        except (RedisError, OSError, TimeoutError) as error:
            self._open_breaker(error)
            return None

    async def ping(self) -> bool:
        return await self.call(_ping) is True

    def _open_breaker(self, error: Exception) -> None:
        if self._probe is None:
            log.warning("redis.unavailable", error=str(error) or type(error).__name__)
            metrics.cache_breaker_open.set(1)
            self._probe = asyncio.create_task(self._probe_until_back())

    async def _probe_until_back(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_SECONDS)
            try:
                async with _within(self.budget_seconds):
                    await _ping(self._redis)
            except Exception:  # noqa: BLE001, S112 - whatever it is, Redis is not back yet
                continue
            self._probe = None
            metrics.cache_breaker_open.set(0)
            log.info("redis.recovered")
            return

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
        await self._redis.aclose()


@asynccontextmanager
async def _within(seconds: float) -> AsyncGenerator[None]:
    """A timeout that does not count how long this process was too busy to look.

    Timers go first in a turn of the event loop, so a plain one would blame Redis for our own
    bursts. As much as it comes late is granted once more.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    async with asyncio.timeout(None) as limit:

        def look() -> None:
            late = min(loop.time() - due, seconds)
            limit.reschedule(loop.time() + max(0.0, late) + _LOOK_SECONDS)

        timer = loop.call_at(due, look)
        try:
            yield
        finally:
            timer.cancel()


async def _ping(redis: "Redis") -> bool:
    await redis.execute_command("PING")  # pyright: ignore[reportUnknownMemberType] - its own **kwargs
    return True
