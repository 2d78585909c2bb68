"""Redis as a shortcut for replays: what is found here need not be asked of the database.

Never the authority. An entry is bound to the database's identity, the merchant, the operation and
the key, and carries a digest over all of them and the payload: whatever does not fit is a miss,
and a miss is decided by PostgreSQL. Look-ups that wait together are sent together.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from time import monotonic
from typing import Final, cast

from redis.asyncio import Redis

from picopay.idempotency.model import KeyId
from picopay.infra import metrics
from picopay.infra.logs import log
from picopay.infra.redis import Fast

WRITES_MAX: Final = 20_000
BIND_EVERY_SECONDS: Final = 0.5
_DIGEST_BYTES: Final = 16
# Who has waited here for this part of the time budget asks the database: what is left of it might
# be too little for a Redis that is well, and blame it.
_PATIENCE: Final = 0.5

# One command for all: a pipeline of SETs costs the client ten times as much.
_STORE: Final = """
for i, name in ipairs(KEYS) do redis.call('SET', name, ARGV[i + 1], 'EX', ARGV[1]) end
"""

_LookUp = tuple[str, "asyncio.Future[bytes | None]"]


class ReplayCache:
    """Call `bind` before its first use. `identify` names the database, `secret` only it knows."""

    def __init__(
        self,
        redis: Fast | None,
        identify: Callable[[], Awaitable[str]],
        secret: bytes,
        *,
        ttl_seconds: int,
    ) -> None:
        self._redis = redis
        self._identify = identify
        self._doubts = 0
        self._bound_to: str | None = None
        self._binder: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()  # asked once: each time would be a system call
        self._secret = secret
        self._ttl_seconds = ttl_seconds
        self._waiting: list[_LookUp] = []
        self._waiting_since = 0.0
        self._to_write: dict[str, bytes] = {}
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    async def bind(self) -> None:
        """Ask who the database is; nothing is found or remembered before that is known."""
        doubts = self._doubts
        database = await self._identify()
        if doubts == self._doubts:
            self._bound_to = database

    def doubt(self) -> None:
        """The database was lost: whoever comes back may be another, or know less than before."""
        self._doubts += 1
        self._bound_to = None
        if self._binder is None:
            self._binder = asyncio.create_task(self._bind_again())

    async def _bind_again(self) -> None:
        while self._bound_to is None:
            try:
                await self.bind()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try may succeed
                log.debug("replay_cache.unbound", error=str(error))
                await asyncio.sleep(BIND_EVERY_SECONDS)
        self._binder = None

    async def peek(self, key: KeyId) -> bytes | None:
        """What was remembered under the key, or None for "ask the database"."""
        if self._bound_to is None or self._redis is None or not self._redis.available:
            metrics.cache_unavailable.inc()
            return None
        future: asyncio.Future[bytes | None] = self._loop.create_future()
        if not self._waiting:
            self._waiting_since = monotonic()
        self._waiting.append((self._name(key), future))
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_waiting())
        payload = await future
        (metrics.cache_hits if payload is not None else metrics.cache_misses).inc()
        return payload

    def remember(self, key: KeyId, payload: bytes) -> None:
        """Store, soon and without waiting, what has been committed; under pressure, do not."""
        if self._bound_to is None or self._redis is None or not self._redis.available:
            return
        if len(self._to_write) > WRITES_MAX:
            return
        name = self._name(key)
        self._to_write[name] = self._digest(name, payload) + payload
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_waiting())

    async def close(self) -> None:
        if self._binder is not None:
            self._binder.cancel()
        if self._writer is not None:
            await self._writer

    def _name(self, key: KeyId) -> str:
        # 1: the payload's format
        return f"picopay:1:{self._bound_to}:{key.operation}:{key.merchant_id}:{key.key}"

    async def _read_waiting(self) -> None:
        """While one look-up is on its way, the next gathers: one trip for all of them."""
        assert self._redis is not None
        asked: list[_LookUp] = []
        try:
            while self._waiting:
                asked, self._waiting = self._waiting, []
                names = [name for name, _ in asked]
                spent = monotonic() - self._waiting_since
                self._answer(asked, await self._read(names, spent))
        finally:
            # Whatever went wrong, nobody is left waiting for it.
            self._reader = None
            left, self._waiting = [*asked, *self._waiting], []
            self._answer(left, None)

    async def _read(self, names: Sequence[str], spent_seconds: float) -> object:
        assert self._redis is not None
        if spent_seconds > _PATIENCE * self._redis.budget_seconds:
            return None
        return await self._redis.call(
            lambda redis: redis.mget(list(names)), spent_seconds=spent_seconds
        )

    async def _write_waiting(self) -> None:
        assert self._redis is not None
        try:
            while self._to_write and self._redis.available:
                chunk, self._to_write = self._to_write, {}
                await self._redis.call(lambda redis, chunk=chunk: self._store(redis, chunk))
        finally:
            self._to_write = {}
            self._writer = None

    async def _store(self, redis: Redis, chunk: Mapping[str, bytes]) -> None:
        names = list(chunk)
        await redis.eval(_STORE, len(names), *names, self._ttl_seconds, *chunk.values())

    def _answer(self, asked: Sequence[_LookUp], values: object) -> None:
        """Hand out the values; all of them are misses if that is not one for each look-up."""
        fits = isinstance(values, list) and len(cast("list[object]", values)) == len(asked)
        found: Sequence[object] = cast("list[object]", values) if fits else [None] * len(asked)
        for (name, future), value in zip(asked, found, strict=True):
            if not future.done():
                future.set_result(self._checked(name, value))

    def _checked(self, name: str, value: object) -> bytes | None:
        if not isinstance(value, bytes):
            return None
        digest, payload = value[:_DIGEST_BYTES], value[_DIGEST_BYTES:]
        return payload if hmac.compare_digest(digest, self._digest(name, payload)) else None

    def _digest(self, name: str, payload: bytes) -> bytes:
        """Keyed: who can write to Redis still cannot make up a replay."""
        bound = blake2b(name.encode(), key=self._secret).digest()
        return blake2b(payload, digest_size=_DIGEST_BYTES, key=bound).digest()
