"""Rate limits on a real Valkey: exact while it is there, and never off when it is not."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from prometheus_client import REGISTRY
from tests.conftest import Stores
from tests.integration.redis_server import RedisServer, answering, command
from tests.processes import free_port

from picopay.access.errors import RateLimited
from picopay.access.limits import Limits
from picopay.access.model import Grant, Rule
from picopay.infra import redis as fast
from picopay.infra.redis import Fast

BUDGET_SECONDS: Final = 0.5
# What a busy machine may add to it: less than another budget.
SLACK_SECONDS: Final = 0.45
PEPPER: Final = b"pepper"
ADA: Final = "ada@example.com"
FIVE: Final = Rule("five", 5, 60)
PER_ADDRESS: Final = Rule("per-address", 3, 60)


@asynccontextmanager
async def opened(url: str | None, budget_seconds: float = 5.0) -> AsyncGenerator[Limits]:
    """With a budget that no busy machine exceeds, unless that is what a test is about."""
    redis = None if url is None else Fast(url, budget_seconds=budget_seconds)
    limits = Limits(redis, PEPPER)
    try:
        yield limits
    finally:
        await limits.close()
        if redis is not None:
            await redis.close()


@pytest.fixture
async def limits(clean: Stores) -> AsyncIterator[Limits]:
    async with opened(clean.redis_url) as limits:
        yield limits


@pytest.fixture(params=["redis", "memory"])
async def either(clean: Stores, request: pytest.FixtureRequest) -> AsyncIterator[Limits]:
    """The same behaviour, whoever decides."""
    async with opened(clean.redis_url if request.param == "redis" else None) as limits:
        yield limits


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


async def allowed(limits: Limits, rule: Rule = FIVE, subject: str = ADA) -> bool:
    try:
        await limits.take([(rule, subject)])
    except RateLimited:
        return False
    return True


async def refusal(limits: Limits, *wanted: tuple[Rule, str]) -> RateLimited:
    with pytest.raises(RateLimited) as refused:
        await limits.take(wanted or [(FIVE, ADA)])
    return refused.value


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


def decisions(rule: Rule) -> tuple[float, float]:
    return tuple(  # pyright: ignore[reportReturnType] - two of them
        counted("limiter_decisions_total", rule=rule.name, result=result)
        for result in ("allowed", "limited")
    )


def members(url: str) -> dict[str, int]:
    """How many members each window in Redis has, by the name of its rule."""
    names: list[bytes] = command(url, "KEYS", "picopay:{limits}:*")
    return {name.decode().split(":")[2]: command(url, "ZCARD", name) for name in names}


async def test_the_limit_is_allowed_and_not_one_more(either: Limits) -> None:
    assert [await allowed(either) for _ in range(7)] == [True] * 5 + [False] * 2


async def test_subjects_and_rules_have_windows_of_their_own(either: Limits) -> None:
    for _ in range(5):
        assert await allowed(either)
    assert not await allowed(either)
    assert await allowed(either, subject="bob@example.com")
    assert await allowed(either, Rule("six", 5, 60))


async def test_of_many_at_once_exactly_the_limit_is_allowed(either: Limits) -> None:
    rule = Rule("many", 100, 60)
    found = await asyncio.gather(*(allowed(either, rule) for _ in range(1_500)))
    assert sum(found) == 100


async def test_a_rule_of_zero_is_off_and_costs_nothing(limits: Limits, clean: Stores) -> None:
    off = Rule("off", 0, 60)
    for _ in range(20):
        await limits.give_back(await limits.take([(off, ADA)]))
    assert members(clean.redis_url) == {}
    for _ in range(5):
        await limits.take([(off, ADA), (FIVE, ADA)])
    assert (await refusal(limits, (off, ADA), (FIVE, ADA))).rule == "five"


class Seen(NamedTuple):
    """A take as its caller saw it: when the server decided lies between the two times."""

    began: float
    ended: float
    allowed: bool


async def seen(limits: Limits, rule: Rule, at: float) -> Seen:
    await asyncio.sleep(at)
    began = time.monotonic()
    verdict = await allowed(limits, rule)
    return Seen(began, time.monotonic(), verdict)


def assert_exact(takes: Sequence[Seen], rule: Rule) -> None:
    """By the definition, up to the time that a take was under way."""
    kept = [take for take in takes if take.allowed]
    by_begin = sorted(take.began for take in kept)
    by_end = sorted(take.ended for take in kept)
    for first, last in zip(by_begin, by_end[rule.limit :], strict=False):
        assert last - first >= rule.window_seconds, "more than the limit in one window"
    for take in takes:
        if not take.allowed:
            counts = [
                other
                for other in kept
                if other.ended > take.began - rule.window_seconds and other.began < take.ended
            ]
            assert len(counts) >= rule.limit, "refused, though the limit was not reached"


async def test_callers_at_random_times_are_allowed_what_an_oracle_allows(either: Limits) -> None:
    """By three rules at once: each has windows of its own."""
    await asyncio.gather(*(_randomly(either, *case) for case in [(1, 20), (7, 60), (50, 200)]))


async def _randomly(either: Limits, limit: int, rate: int) -> None:
    chance = random.Random(limit)  # noqa: S311 - of a test
    rule = Rule(f"random-{limit}", limit, 1)
    times = [chance.uniform(0, 3.5) for _ in range(int(3.5 * rate))]
    bursts = [at for at in chance.choices(times, k=3) for _ in range(limit + 5)]
    takes = await asyncio.gather(*(seen(either, rule, at) for at in [*times, *bursts]))
    assert_exact(takes, rule)
    assert 3 * limit <= sum(take.allowed for take in takes) <= 5 * limit
    assert not all(take.allowed for take in takes)


async def test_the_window_slides_with_each_grant_and_has_no_edges(either: Limits) -> None:
    rule = Rule("sliding", 2, 2)
    assert await allowed(either, rule)
    await asyncio.sleep(1.2)
    assert await allowed(either, rule)
    await asyncio.sleep(0.9)  # the first has passed, the second has not
    assert await allowed(either, rule)
    assert not await allowed(either, rule)
    await asyncio.sleep(1.2)
    assert await allowed(either, rule)
    assert not await allowed(either, rule)


async def test_refusals_do_not_lengthen_the_wait(either: Limits) -> None:
    rule = Rule("patient", 1, 1)
    assert await allowed(either, rule)
    started = time.monotonic()
    while not await allowed(either, rule):
        assert time.monotonic() - started < 1.2
        await asyncio.sleep(0.01)
    assert time.monotonic() - started > 0.9


async def test_after_the_wait_that_is_told_one_more_is_allowed_and_a_second_before_not(
    either: Limits,
) -> None:
    rule = Rule("told", 2, 2)
    assert await allowed(either, rule)
    await asyncio.sleep(0.3)
    assert await allowed(either, rule)
    refused = await refusal(either, (rule, ADA))
    assert (refused.retry_after_seconds, refused.limit, refused.remaining) == (2, 2, 0)
    await asyncio.sleep(refused.retry_after_seconds - 1)
    assert (await refusal(either, (rule, ADA))).retry_after_seconds == 1
    await asyncio.sleep(1)
    assert await allowed(either, rule)


async def test_the_headers_tell_the_rule_and_the_wait(either: Limits) -> None:
    for _ in range(5):
        await either.take([(FIVE, ADA)])
    refused = await refusal(either)
    seconds = refused.retry_after_seconds
    assert 55 < seconds == refused.reset_seconds <= 60
    assert refused.headers == {
        "Retry-After": f"{seconds}",
        "RateLimit": f'"five";r=0;t={seconds}',
        "RateLimit-Policy": '"five";q=5;w=60',
    }


async def test_several_rules_spend_together_or_not_at_all(either: Limits) -> None:
    here, there = [((FIVE, ADA), (PER_ADDRESS, f"192.0.2.{n}")) for n in (1, 2)]
    for _ in range(3):
        await either.take(here)
    for _ in range(10):
        assert (await refusal(either, *here)).rule == "per-address"
    for _ in range(2):  # the refused have not spent these
        await either.take(there)
    for _ in range(10):
        assert (await refusal(either, *there)).rule == "five"
    assert await allowed(either, PER_ADDRESS, "192.0.2.2")
    assert not await allowed(either, PER_ADDRESS, "192.0.2.2")


async def test_the_rule_that_lasts_longest_is_told(either: Limits) -> None:
    short, long = Rule("short", 1, 5), Rule("long", 1, 50)
    await either.take([(short, ADA), (long, ADA)])
    for wanted in [((short, ADA), (long, ADA)), ((long, ADA), (short, ADA))]:
        refused = await refusal(either, *wanted)
        assert refused.rule == "long"
        assert 45 < refused.retry_after_seconds <= 50


async def test_what_is_given_back_can_be_taken_again_once(either: Limits) -> None:
    wanted = [(FIVE, ADA), (PER_ADDRESS, "192.0.2.1")]
    grants = [await either.take(wanted) for _ in range(3)]
    await refusal(either, *wanted)
    await either.give_back(grants[1])
    await either.give_back(grants[1])
    await either.take(wanted)
    await refusal(either, *wanted)


async def test_only_its_own_members_are_given_back(limits: Limits, clean: Stores) -> None:
    wanted = [(FIVE, ADA), (PER_ADDRESS, "192.0.2.1")]
    grants = [await limits.take(wanted) for _ in range(3)]
    (name,) = command(clean.redis_url, "KEYS", "*:five:*")
    await limits.give_back(grants[1])
    left = [grant.member for grant in (grants[0], grants[2])]
    assert command(clean.redis_url, "ZRANGE", name, 0, -1) == left
    for grant in grants:
        await limits.give_back(grant)
    assert members(clean.redis_url) == {}


async def test_windows_are_bounded_expire_and_do_not_tell_whose_they_are(
    limits: Limits, clean: Stores
) -> None:
    await asyncio.gather(*(allowed(limits) for _ in range(200)))
    assert members(clean.redis_url) == {"five": 5}
    (name,) = command(clean.redis_url, "KEYS", "*")
    assert name.startswith(b"picopay:{limits}:five:")
    assert b"ada" not in name
    assert b"example" not in name
    assert 59_000 < command(clean.redis_url, "PTTL", name) <= 60_001
    kept = command(clean.redis_url, "ZRANGE", name, 0, -1)
    assert all(b"ada" not in member for member in kept)


async def test_a_window_that_has_passed_leaves_nothing_in_redis(
    limits: Limits, clean: Stores
) -> None:
    assert await allowed(limits, Rule("brief", 3, 1))
    assert members(clean.redis_url) == {"brief": 1}
    await asyncio.sleep(1.2)
    assert members(clean.redis_url) == {}


async def test_takes_that_wait_together_are_sent_together(server: RedisServer) -> None:
    async with opened(server.url) as limits:
        await allowed(limits)
        command(server.url, "CONFIG", "RESETSTAT")
        await asyncio.gather(*(allowed(limits, FIVE, str(number)) for number in range(1_000)))
    stats = command(server.url, "INFO", "commandstats")
    assert stats["cmdstat_evalsha"]["calls"] <= 6


async def test_a_caller_who_leaves_takes_no_verdict_from_the_others(limits: Limits) -> None:
    takes = [asyncio.create_task(allowed(limits)) for _ in range(5)]
    await asyncio.sleep(0)
    takes[0].cancel()
    assert await asyncio.gather(*takes[1:]) == [True] * 4


async def test_a_clock_set_back_lengthens_a_window_by_itself_at_most(
    limits: Limits, clean: Stores
) -> None:
    for _ in range(5):
        assert await allowed(limits)
    (name,) = command(clean.redis_url, "KEYS", "*")
    hour_us = 3600 * 1_000_000
    for member in command(clean.redis_url, "ZRANGE", name, 0, -1):
        command(clean.redis_url, "ZINCRBY", name, hour_us, member)
    assert 55 < (await refusal(limits)).retry_after_seconds <= 60
    await asyncio.sleep(1)
    assert 55 < (await refusal(limits)).retry_after_seconds <= 59


_TAKE_SIXTY: Final = """
import asyncio, sys
from picopay.access.errors import RateLimited
from picopay.access.limits import Limits
from picopay.access.model import Rule
from picopay.infra.redis import Fast

async def main():
    redis = Fast(sys.argv[1], budget_seconds=5)
    limits = Limits(redis, b"pepper")
    wanted = [(Rule("shared", 40, 60), "ada@example.com")]
    found = await asyncio.gather(*(limits.take(wanted) for _ in range(60)), return_exceptions=True)
    assert all(isinstance(f, RateLimited) for f in found if isinstance(f, Exception)), found
    print(sum(not isinstance(f, Exception) for f in found))
    await redis.close()

asyncio.run(main())
"""


async def test_processes_share_a_window(clean: Stores) -> None:
    command_line = (sys.executable, "-c", _TAKE_SIXTY, clean.redis_url)
    children = [
        await asyncio.create_subprocess_exec(*command_line, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    told = [(await child.communicate())[0] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sum(map(int, told)) == 40


async def test_two_that_know_nothing_of_each_other_share_a_window(clean: Stores) -> None:
    rule = Rule("shared", 40, 60)
    async with opened(clean.redis_url) as one, opened(clean.redis_url) as other:
        takes = [allowed(limits, rule) for limits in (one, other) for _ in range(100)]
        random.Random(1).shuffle(takes)  # noqa: S311 - of a test
        assert sum(await asyncio.gather(*takes)) == 40
        assert not await allowed(one, rule)
        assert not await allowed(other, rule)


async def test_what_one_process_gives_back_another_may_take(clean: Stores) -> None:
    once = Rule("once", 1, 60)
    async with opened(clean.redis_url) as one, opened(clean.redis_url) as other:
        grant = await one.take([(once, ADA)])
        assert not await allowed(other, once)
        await one.give_back(grant)
        assert await allowed(other, once)
        assert not await allowed(one, once)


async def test_decisions_are_counted_by_rule(limits: Limits) -> None:
    wanted = [(FIVE, ADA), (PER_ADDRESS, "192.0.2.1")]
    before, other = decisions(FIVE), decisions(PER_ADDRESS)
    alone = counted("limiter_fallback_total")
    for _ in range(3):
        await limits.take(wanted)
    await refusal(limits, *wanted)
    assert decisions(FIVE) == (before[0] + 3, before[1])
    assert decisions(PER_ADDRESS) == (other[0] + 3, other[1] + 1)
    assert counted("limiter_fallback_total") == alone


async def test_a_redis_that_was_flushed_allows_no_process_more_than_the_limit(
    server: RedisServer,
) -> None:
    async with opened(server.url) as limits:
        assert [await allowed(limits) for _ in range(4)] == [True] * 4
        command(server.url, "FLUSHALL")
        command(server.url, "SCRIPT", "FLUSH")
        alone = counted("limiter_fallback_total")
        assert [await allowed(limits) for _ in range(4)] == [True, False, False, False]
        assert (await refusal(limits)).retry_after_seconds in range(56, 61)
        assert counted("limiter_fallback_total") == alone
        assert members(server.url) == {"five": 1}  # what memory refused was given back


async def test_a_forgotten_script_is_sent_again(server: RedisServer) -> None:
    async with opened(server.url) as limits:
        alone = counted("limiter_fallback_total")
        for _ in range(4):
            command(server.url, "SCRIPT", "FLUSH")
            assert await allowed(limits)
        assert members(server.url) == {"five": 4}
        assert counted("limiter_fallback_total") == alone


async def take_all(limits: Limits, wanted: int) -> tuple[int, float]:
    """How many were allowed, and the longest that anyone waited."""

    async def timed() -> tuple[bool, float]:
        started = time.monotonic()
        return await allowed(limits), time.monotonic() - started

    found = await asyncio.gather(*(timed() for _ in range(wanted)))
    return sum(ok for ok, _ in found), max(seconds for _, seconds in found)


@pytest.mark.usefixtures("quiet")  # it measures
async def test_a_redis_killed_in_the_middle_changes_no_limit(server: RedisServer) -> None:
    async with opened(server.url, BUDGET_SECONDS) as limits:
        assert (await take_all(limits, 3))[0] == 3
        before, alone = decisions(FIVE), counted("limiter_fallback_total")
        server.kill()
        found, longest = await take_all(limits, 100)
        assert found == 2
        assert longest < BUDGET_SECONDS + SLACK_SECONDS
        assert counted("limiter_fallback_total") == alone + 100
        assert decisions(FIVE) == (before[0] + 2, before[1] + 98)
        server.start()
        await asyncio.sleep(3 * fast.PROBE_EVERY_SECONDS)
        assert (await take_all(limits, 20))[0] == 0
        assert counted("limiter_fallback_total") == alone + 100
        assert await allowed(limits, subject="new")


@pytest.mark.usefixtures("quiet")  # it measures
async def test_a_frozen_redis_costs_its_budget_once_and_changes_no_limit(
    server: RedisServer,
) -> None:
    async with opened(server.url, BUDGET_SECONDS) as limits:
        assert (await take_all(limits, 3))[0] == 3
        alone = counted("limiter_fallback_total")
        server.freeze()
        found, longest = await take_all(limits, 600)
        assert found == 2
        assert longest < BUDGET_SECONDS + SLACK_SECONDS
        assert (await take_all(limits, 20))[1] < SLACK_SECONDS
        assert counted("limiter_fallback_total") == alone + 620
        server.thaw()
        await asyncio.sleep(3 * fast.PROBE_EVERY_SECONDS)
        assert (await take_all(limits, 20))[0] == 0


async def test_what_is_given_back_while_redis_is_away_can_be_taken_here(
    server: RedisServer,
) -> None:
    async with opened(server.url, BUDGET_SECONDS) as limits:
        grants: list[Grant] = [await limits.take([(FIVE, ADA)]) for _ in range(5)]
        server.kill()
        await limits.give_back(grants[0])
        assert (await take_all(limits, 5))[0] == 1


async def test_a_full_redis_leaves_the_limit_in_force(server: RedisServer) -> None:
    async with opened(server.url) as limits:
        command(server.url, "CONFIG", "SET", "maxmemory", 1)
        assert (await take_all(limits, 20))[0] == 5


@pytest.mark.parametrize("url", [None, f"redis://127.0.0.1:{free_port()}/0"], ids=["none", "away"])
async def test_without_a_redis_limits_are_in_force_and_counted(url: str | None) -> None:
    async with opened(url) as limits:
        alone = counted("limiter_fallback_total")
        assert (await take_all(limits, 20))[0] == 5
        assert counted("limiter_fallback_total") == alone + 20


@pytest.mark.parametrize(
    "reply",
    [
        b"+OK\r\n",
        b":0\r\n",
        b"*0\r\n",
        b"*2\r\n:0\r\n:5\r\n",
        b"*2\r\n:1\r\n:0\r\n",
        b"*2\r\n:7\r\n:5\r\n",
        b"*2\r\n:-1\r\n:5\r\n",
        b"*2\r\n:1\r\n:99000000000\r\n",
        b"*2\r\n$1\r\n0\r\n$1\r\n0\r\n",
        b"*3\r\n:0\r\n:0\r\n:0\r\n",
        b"-LOADING the dataset\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-NOSCRIPT No matching script.\r\n",
        b"\x00\xff" * 50,
    ],
)
async def test_whatever_a_wrong_server_answers_memory_decides(reply: bytes) -> None:
    async with answering(reply) as url, opened(url, BUDGET_SECONDS) as limits:
        alone = counted("limiter_fallback_total")
        assert [await allowed(limits) for _ in range(6)] == [True] * 5 + [False]
        assert counted("limiter_fallback_total") == alone + 6


async def test_a_value_of_another_type_leaves_the_limit_in_force(
    limits: Limits, clean: Stores
) -> None:
    await allowed(limits)
    (name,) = command(clean.redis_url, "KEYS", "*")
    command(clean.redis_url, "DEL", name)
    command(clean.redis_url, "SET", name, "nonsense")
    assert [await allowed(limits) for _ in range(5)] == [True] * 4 + [False]


async def test_a_process_too_busy_to_look_does_not_blame_redis(clean: Stores) -> None:
    """Its burst is still counted where all processes count, not in its own memory alone."""
    alone = counted("limiter_fallback_total")
    async with opened(clean.redis_url, BUDGET_SECONDS) as limits:
        burst = [asyncio.create_task(allowed(limits)) for _ in range(20)]
        await asyncio.sleep(0)  # they are on their way
        await asyncio.sleep(0)
        time.sleep(1.5 * BUDGET_SECONDS)  # noqa: ASYNC251 - the loop is what is to be held up
        assert sum(await asyncio.gather(*burst)) == FIVE.limit
    async with opened(clean.redis_url, BUDGET_SECONDS) as another:
        assert not await allowed(another)
    assert counted("limiter_fallback_total") == alone
