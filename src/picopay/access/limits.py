"""Rate limits: at most so many in any window of time, over all processes, whatever Redis does.

Redis knows what all processes have allowed, memory what this one has. Memory has the last word:
a Redis that was flushed, or away and back, makes no process allow more than the limit by itself.
While Redis is away memory decides alone, and each process has a limit of its own.
"""

from collections.abc import Sequence
from itertools import count
from secrets import token_bytes
from time import monotonic_ns
from typing import Final

from picopay.access import rules
from picopay.access.errors import RateLimited
from picopay.access.model import Grant, Rule, Spending, Verdict
from picopay.access.redis_windows import RedisWindows
from picopay.access.windows import Windows
from picopay.infra import metrics
from picopay.infra.redis import Fast

_ORIGIN_BYTES: Final = 12
_NUMBER_BYTES: Final = 6


class Limits:
    """One for a process. `pepper` hides in Redis who the subjects are."""

    def __init__(self, redis: Fast | None, pepper: bytes) -> None:
        self._shared = RedisWindows(redis) if redis is not None else None
        self._own = Windows()
        self._pepper = pepper
        # Members are unique among all processes without asking anybody.
        self._origin = token_bytes(_ORIGIN_BYTES)
        self._numbers = count()

    async def take(self, wanted: Sequence[tuple[Rule, str]]) -> Grant:
        """One of each rule for its subject, or of none of them. Raises `RateLimited`.

        A subject is any text, such as an e-mail address in its one spelling. No rule may be there
        twice for one subject. Rules with a limit of 0 are off.
        """
        grant = self._grant(wanted)
        if not grant.spent:
            return grant
        grant, verdict = await self._decide(grant)
        if verdict.limited_by is None:
            for rule, _ in grant.spent:
                metrics.limiter_decisions.labels(rule.name, "allowed").inc()
            return grant
        rule = verdict.limited_by
        metrics.limiter_decisions.labels(rule.name, "limited").inc()
        raise RateLimited(
            rule.name,
            limit=rule.limit,
            window_seconds=rule.window_seconds,
            retry_after_seconds=rules.retry_after_seconds(verdict.wait_us),
        )

    async def give_back(self, grant: Grant) -> None:
        """As if this had not been taken; for what turns out to be no new request.

        Doing it twice, or late, changes nothing. If Redis cannot be reached just now, it goes on
        counting there until its window has passed.
        """
        if grant.spent:
            self._own.give_back(grant)
            if self._shared is not None:
                await self._shared.give_back(grant)

    async def close(self) -> None:
        if self._shared is not None:
            await self._shared.close()

    def _grant(self, wanted: Sequence[tuple[Rule, str]]) -> Grant:
        spent = tuple(
            Spending(rule, rules.limit_key(self._pepper, rule, subject))
            for rule, subject in wanted
            if rule.limit
        )
        assert len({key for _, key in spent}) == len(spent), "a rule twice for one subject"
        number = next(self._numbers).to_bytes(_NUMBER_BYTES, "big")
        return Grant(self._origin + number, spent, _now_us())

    async def _decide(self, grant: Grant) -> tuple[Grant, Verdict]:
        shared = await self._shared.take(grant) if self._shared is not None else None
        now_us = _now_us()
        if shared is None:
            metrics.limiter_fallback.inc()
            grant = grant._replace(at_us=now_us)
            return grant, self._own.take(grant, now_us)
        if shared.limited_by is not None:
            return grant, shared
        # Noted as of before Redis was asked, and judged as of after: so memory never lasts longer
        # than a Redis that has forgotten nothing.
        own = self._own.take(grant, now_us)
        if own.limited_by is not None and self._shared is not None:
            await self._shared.give_back(grant)
        return grant, own


def _now_us() -> int:
    return monotonic_ns() // 1000
