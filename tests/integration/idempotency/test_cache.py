"""Redis answers replays when it can, and costs nobody more than its time budget when it cannot."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import CapturingLogger
from tests.conftest import Stores
from tests.integration.redis_server import RedisServer, answering, command
from tests.processes import free_port

from picopay.idempotency.cache import ReplayCache
from picopay.idempotency.model import KeyId, Operation
from picopay.infra import redis as fast
from picopay.infra.redis import Fast

KEY = KeyId("k", "acme", Operation.CHARGE)
OTHER = KeyId("other", "acme", Operation.CHARGE)
BUDGET_SECONDS = 0.1
# What a busy test machine may add to it.
SLACK_SECONDS = 0.15


def named(database: str) -> Callable[[], Awaitable[str]]:
    async def identify() -> str:
        return database

    return identify


@asynccontextmanager
async def opened(
    url: str, database: str = "db", ttl_seconds: int = 60, secret: bytes = b"pepper"
) -> AsyncGenerator[ReplayCache]:
    redis = Fast(url, budget_seconds=BUDGET_SECONDS)
    cache = ReplayCache(redis, named(database), secret, ttl_seconds=ttl_seconds)
    await cache.bind()
    yield cache
    await cache.close()
    await redis.close()


@pytest.fixture
async def cache(clean: Stores) -> AsyncIterator[ReplayCache]:
    async with opened(clean.redis_url) as cache:
        yield cache


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """What the connection to Redis logs."""
    logger = CapturingLogger()
    monkeypatch.setattr(fast, "log", logger)
    return logger


def events(logged: CapturingLogger) -> list[str]:
    shown = ("info", "warning", "error", "exception")
    return [call.args[0] for call in logged.calls if call.method_name in shown]


async def remember(cache: ReplayCache, payload: bytes = b"payload", key: KeyId = KEY) -> None:
    cache.remember(key, payload)
    await cache.close()  # waits for the writer alone


async def timed_peek(cache: ReplayCache, key: KeyId = KEY) -> tuple[bytes | None, float]:
    started = time.monotonic()
    return await cache.peek(key), time.monotonic() - started


async def peek_when_back(cache: ReplayCache) -> bytes | None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if (found := await cache.peek(KEY)) is not None:
            return found
        await asyncio.sleep(0.05)
    return None


async def test_what_was_remembered_is_found(cache: ReplayCache) -> None:
    assert await cache.peek(KEY) is None
    await remember(cache)
    assert await cache.peek(KEY) == b"payload"
    assert await cache.peek(OTHER) is None


@pytest.mark.parametrize(
    "key",
    [
        KEY._replace(merchant_id="other"),
        KEY._replace(operation=Operation.DEPOSIT),
        KEY._replace(key="K"),
    ],
)
async def test_an_entry_belongs_to_its_merchant_operation_and_key(
    cache: ReplayCache, key: KeyId
) -> None:
    await remember(cache)
    assert await cache.peek(key) is None


async def test_another_databases_entries_are_misses(cache: ReplayCache, clean: Stores) -> None:
    await remember(cache)
    async with opened(clean.redis_url, database="restored") as stranger:
        assert await stranger.peek(KEY) is None


async def test_an_entry_lives_as_long_as_told(clean: Stores) -> None:
    async with opened(clean.redis_url, ttl_seconds=4321) as cache:
        await remember(cache)
    (name,) = command(clean.redis_url, "KEYS", "*")
    assert 4300 < command(clean.redis_url, "TTL", name) <= 4321


def spoilt(value: bytes) -> list[bytes]:
    cut = [value[:-1], value[:16], value[:5], b""]
    return [*cut, value[:-1] + b"!", b"!" + value[1:], value + b" ", b"null"]


async def test_a_spoilt_value_is_a_miss(cache: ReplayCache, clean: Stores) -> None:
    await remember(cache)
    (name,) = command(clean.redis_url, "KEYS", "*")
    value: bytes = command(clean.redis_url, "GET", name)
    for wrong in spoilt(value):
        command(clean.redis_url, "SET", name, wrong)
        assert await cache.peek(KEY) is None
    command(clean.redis_url, "SET", name, value)
    assert await cache.peek(KEY) == b"payload"


async def test_a_value_of_another_key_is_a_miss(cache: ReplayCache, clean: Stores) -> None:
    await remember(cache)
    (mine,) = command(clean.redis_url, "KEYS", "*")
    await remember(cache, b"other", OTHER)
    (others,) = set(command(clean.redis_url, "KEYS", "*")) - {mine}
    command(clean.redis_url, "SET", mine, command(clean.redis_url, "GET", others))
    assert await cache.peek(KEY) is None
    assert await cache.peek(OTHER) == b"other"


async def test_a_value_of_another_type_is_a_miss(cache: ReplayCache, clean: Stores) -> None:
    await remember(cache)
    (name,) = command(clean.redis_url, "KEYS", "*")
    command(clean.redis_url, "DEL", name)
    command(clean.redis_url, "LPUSH", name, "payload")
    assert await cache.peek(KEY) is None


async def test_a_flushed_redis_is_a_miss_and_is_filled_again(
    cache: ReplayCache, clean: Stores
) -> None:
    await remember(cache)
    command(clean.redis_url, "FLUSHDB")
    assert await cache.peek(KEY) is None
    await remember(cache)
    assert await cache.peek(KEY) == b"payload"


async def test_without_redis_everything_is_a_miss() -> None:
    cache = ReplayCache(None, named("db"), b"pepper", ttl_seconds=60)
    await cache.bind()
    await remember(cache)
    assert await cache.peek(KEY) is None


async def test_look_ups_that_wait_together_are_sent_together(server: RedisServer) -> None:
    async with opened(server.url) as cache:
        await remember(cache)
        keys = [KEY] * 200 + [KEY._replace(key=str(number)) for number in range(200)]
        found = await asyncio.gather(*map(cache.peek, keys))
    assert found == [b"payload"] * 200 + [None] * 200
    stats = command(server.url, "INFO", "commandstats")
    assert stats["cmdstat_mget"]["calls"] <= 4


async def test_a_caller_who_leaves_takes_no_answer_from_the_others(cache: ReplayCache) -> None:
    await remember(cache)
    peeks = [asyncio.create_task(cache.peek(KEY)) for _ in range(10)]
    await asyncio.sleep(0)
    peeks[0].cancel()
    assert await asyncio.gather(*peeks[1:]) == [b"payload"] * 9


async def test_a_frozen_redis_costs_its_budget_once_and_recovers(
    server: RedisServer, logged: CapturingLogger
) -> None:
    async with opened(server.url) as cache:
        await remember(cache)
        server.freeze()
        together = await asyncio.gather(*(timed_peek(cache) for _ in range(100)))
        assert {found for found, _ in together} == {None}
        assert max(seconds for _, seconds in together) < BUDGET_SECONDS + SLACK_SECONDS
        afterwards = [await timed_peek(cache) for _ in range(20)]
        assert max(seconds for _, seconds in afterwards) < 0.01
        cache.remember(OTHER, b"lost")
        server.thaw()
        assert await peek_when_back(cache) == b"payload"
    assert events(logged) == ["redis.unavailable", "redis.recovered"]


async def test_a_redis_that_freezes_while_it_is_written_to_holds_up_nobody(
    server: RedisServer, logged: CapturingLogger
) -> None:
    async with opened(server.url) as cache:
        server.freeze()
        started = time.monotonic()
        cache.remember(KEY, b"payload")
        assert time.monotonic() - started < 0.05
        await cache.close()
        assert time.monotonic() - started < BUDGET_SECONDS + SLACK_SECONDS
        server.thaw()
    assert events(logged) == ["redis.unavailable"]


async def test_a_dead_redis_is_left_alone_until_it_is_back(
    server: RedisServer, logged: CapturingLogger
) -> None:
    async with opened(server.url) as cache:
        await remember(cache)
        server.kill()
        peeks = [await timed_peek(cache) for _ in range(50)]
        assert {found for found, _ in peeks} == {None}
        assert max(seconds for _, seconds in peeks) < BUDGET_SECONDS + SLACK_SECONDS
        server.start()
        await asyncio.sleep(2 * fast.PROBE_EVERY_SECONDS)
        await remember(cache)
        assert await peek_when_back(cache) == b"payload"
    assert events(logged) == ["redis.unavailable", "redis.recovered"]


async def test_a_redis_that_was_never_there_is_only_a_miss(logged: CapturingLogger) -> None:
    async with opened(f"redis://127.0.0.1:{free_port()}/0") as cache:
        found, seconds = await timed_peek(cache)
        await remember(cache)
        assert found is None
        assert seconds < BUDGET_SECONDS + SLACK_SECONDS
    assert events(logged) == ["redis.unavailable"]


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b"*0\r\n",
        b"*3\r\n$-1\r\n$-1\r\n$-1\r\n",
        b"*1\r\n:1\r\n",
        b"-LOADING the dataset\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"$5\r\nab",
        b"\x00\xff" * 50,
    ],
)
async def test_whatever_a_wrong_server_answers_is_a_miss(
    reply: bytes, logged: CapturingLogger
) -> None:
    async with answering(reply) as url, opened(url) as cache:
        first = asyncio.create_task(timed_peek(cache))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        meanwhile = asyncio.create_task(timed_peek(cache, OTHER))
        async with asyncio.timeout(5):
            peeks = [await first, await meanwhile, await timed_peek(cache)]
        await remember(cache)
        for found, seconds in peeks:
            assert found is None
            assert seconds < BUDGET_SECONDS + SLACK_SECONDS
    assert events(logged) in ([], ["redis.unavailable"])


async def test_a_full_redis_still_answers_what_it_knows(
    server: RedisServer, logged: CapturingLogger
) -> None:
    async with opened(server.url) as cache:
        await remember(cache)
        command(server.url, "CONFIG", "SET", "maxmemory", 1)
        await remember(cache, b"no room", OTHER)
        assert await cache.peek(OTHER) is None
        assert await cache.peek(KEY) == b"payload"
        command(server.url, "CONFIG", "SET", "maxmemory", 0)
        await remember(cache, b"room again", OTHER)
        assert await cache.peek(OTHER) == b"room again"
    assert "redis.unavailable" not in events(logged)


async def test_who_can_write_to_redis_still_cannot_make_up_a_replay(clean: Stores) -> None:
    async with opened(clean.redis_url, secret=b"guessed") as forger:
        forger.remember(KEY, b"made up")
        await forger.close()
    async with opened(clean.redis_url) as cache:
        assert await cache.peek(KEY) is None


async def test_a_database_that_was_lost_is_asked_who_it_is_before_anything_is_found(
    clean: Stores,
) -> None:
    """Whoever takes over may not know what the one before has answered."""
    names = ["one", "one", "other"]

    async def identify() -> str:
        if not names:
            raise OSError("not back yet")
        return names.pop(0)

    redis = Fast(clean.redis_url, budget_seconds=BUDGET_SECONDS)
    cache = ReplayCache(redis, identify, b"pepper", ttl_seconds=60)
    assert await cache.peek(KEY) is None  # nobody was asked yet
    await cache.bind()
    await remember(cache)
    assert await cache.peek(KEY) == b"payload"

    cache.doubt()
    assert await cache.peek(KEY) is None
    cache.remember(KEY, b"unknown whose")
    await asyncio.sleep(0.1)
    assert await cache.peek(KEY) == b"payload"  # it was the same

    cache.doubt()
    await asyncio.sleep(0.1)
    assert await cache.peek(KEY) is None  # it was not
    await cache.close()
    await redis.close()
