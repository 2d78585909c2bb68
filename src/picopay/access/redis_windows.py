"""Exact sliding windows in Redis, shared by all processes: one script, one trip for all who wait.

A window is a sorted set: a member for each grant, its score the server's time in microseconds. It
holds at most `limit` members, and expires with the last of them. All of them share one slot of a
cluster, since one script touches several.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from hashlib import sha1
from itertools import chain
from typing import Final, NamedTuple, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from picopay.access.model import ALLOWED, Grant, Spending, Verdict
from picopay.infra.redis import Fast

# The server does nothing else while a script runs: so many requests take it a few ms.
BATCH_MAX: Final = 256
WAITING_MAX: Final = 4_096

# ARGV: for each request `take` or `back`, its member, the count of its keys, and for each of them
# limit and window. Answers two numbers each: which rule limits it (0: none), and for how long.
_SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function wait(key, limit, window)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
  local excess = redis.call('ZCARD', key) - limit
  if excess < 0 then return 0 end
  local found = redis.call('ZRANGE', key, excess, excess, 'WITHSCORES')
  local since = tonumber(found[2])
  if since > now then -- the clock was set back: as of now, or it would last for hours
    for _, member in ipairs(redis.call('ZRANGE', key, excess, -1)) do
      redis.call('ZADD', key, now, member)
    end
    since = now
  end
  return since + window - now
end

local answers, first, at = {}, 0, 1
while at <= #ARGV do
  local member, count = ARGV[at + 1], tonumber(ARGV[at + 2])
  local worst, longest = 0, 0
  if ARGV[at] == 'back' then
    for i = 1, count do redis.call('ZREM', KEYS[first + i], member) end
  else
    for i = 1, count do
      local found = wait(KEYS[first + i], tonumber(ARGV[at + 1 + 2 * i]), tonumber(ARGV[at + 2 + 2 * i]))
      if found > longest then worst, longest = i, found end
    end
    for i = 1, worst == 0 and count or 0 do
      redis.call('ZADD', KEYS[first + i], now, member)
      redis.call('PEXPIRE', KEYS[first + i], tonumber(ARGV[at + 2 + 2 * i]) / 1000 + 1)
    end
  end
  answers[#answers + 1], answers[#answers + 2] = worst, longest
  first, at = first + count, at + 3 + 2 * count
end
return answers
"""  # noqa: E501 - Lua
_SHA: Final = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

_TAKE: Final = b"take"
_BACK: Final = b"back"


class _Request(NamedTuple):
    verb: bytes
    grant: Grant
    verdict: "asyncio.Future[Verdict | None]"


class RedisWindows:
    def __init__(self, redis: Fast) -> None:
        self._redis = redis
        self._waiting: deque[_Request] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def take(self, grant: Grant) -> Verdict | None:
        """Whether all rules allowed it, and only then it is spent; None when Redis cannot tell."""
        return await self._ask(_TAKE, grant)

    async def give_back(self, grant: Grant) -> None:
        """As far as Redis can be reached; else the members stay until their window has passed."""
        await self._ask(_BACK, grant)

    async def close(self) -> None:
        if self._sender is not None:
            await self._sender

    async def _ask(self, verb: bytes, grant: Grant) -> Verdict | None:
        if not self._redis.available or len(self._waiting) >= WAITING_MAX:
            return None
        verdict: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(verb, grant, verdict))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_waiting())
        return await verdict

    async def _send_waiting(self) -> None:
        """While one trip is under way, the next gathers."""
        batch: list[_Request] = []
        try:
            while self._waiting:
                count = min(len(self._waiting), BATCH_MAX)
                batch = [self._waiting.popleft() for _ in range(count)]
                _answer(batch, await self._send(batch))
        finally:
            # Whatever went wrong, nobody is left waiting for it.
            self._sender = None
            left = [*batch, *self._waiting]
            self._waiting.clear()
            _answer(left, None)

    async def _send(self, batch: Sequence[_Request]) -> object:
        """The budget begins with the trip: a burst must not make each process count alone."""
        return await self._redis.call(lambda redis: _run(redis, batch))


async def _run(redis: Redis, batch: Sequence[_Request]) -> object:
    keys = [spending.key for request in batch for spending in request.grant.spent]
    arguments = list(chain.from_iterable(map(_arguments, batch)))
    try:
        return await redis.evalsha(_SHA, len(keys), *keys, *arguments)
    except NoScriptError:  # a new server, or it has forgotten
        return await redis.eval(_SCRIPT, len(keys), *keys, *arguments)


def _arguments(request: _Request) -> list[bytes | int]:
    spent = request.grant.spent
    figures = [n for rule, _ in spent for n in (rule.limit, rule.window_us)]
    return [request.verb, request.grant.member, len(spent), *figures]


def _answer(batch: Sequence[_Request], answers: object) -> None:
    """Hand out the verdicts; nobody has one if that is not two numbers for each request."""
    numbers = cast("list[object]", answers) if isinstance(answers, list) else []
    fits = len(numbers) == 2 * len(batch)
    for index, request in enumerate(batch):
        if not request.verdict.done():
            pair = numbers[2 * index : 2 * index + 2] if fits else []
            request.verdict.set_result(_verdict(request.grant.spent, pair))


def _verdict(spent: Sequence[Spending], pair: Sequence[object]) -> Verdict | None:
    match pair:
        case [0, 0]:
            return ALLOWED
        case [int(number), int(wait_us)] if 1 <= number <= len(spent):
            rule = spent[number - 1].rule
            return Verdict(rule, wait_us) if 0 < wait_us <= rule.window_us else None
        case _:
            return None
