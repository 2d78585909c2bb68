"""The API keys that a process has seen, kept in memory and read again every two seconds.

So a check costs no round trip, a new key works at its first use, and a revoked one stops within
`REFRESH_SECONDS` and the time of one query, in every process.
"""

import asyncio
import hmac
from functools import lru_cache, partial
from time import monotonic
from typing import Final
from uuid import UUID

from picopay.access import rules, service
from picopay.access.errors import ApiKeyInvalid
from picopay.access.model import DEFAULT_MERCHANT, Caller, Scope
from picopay.infra import metrics
from picopay.infra.db import DatabaseUnavailable, Db
from picopay.infra.logs import log

REFRESH_SECONDS: Final = 2.0
RECORD_USES_SECONDS: Final = 60.0
SEEN_MAX: Final = 10_000
LOOK_UPS_MAX: Final = 2
LOOK_UP_WAIT_SECONDS: Final = 5.0
# Texts whose digest is kept, as long as they are used: to make it costs more than all the rest.
DIGESTS_MAX: Final = 1024
DIGESTED_CHARS_MAX: Final = 256  # what is longer is no key of ours, and must take no room
_SHOWN_OF_REJECTED: Final = 8


class Keyring:
    def __init__(self, db: Db, pepper: bytes, bootstrap_key: str | None) -> None:
        self._db = db
        self._pepper = pepper
        # Found by a hash under a secret of this process: how long that takes tells no character.
        self._digest = lru_cache(DIGESTS_MAX)(partial(rules.digest, pepper))
        self._bootstrap = rules.digest(pepper, bootstrap_key) if bootstrap_key else None
        self._bootstrap_caller = Caller(None, DEFAULT_MERCHANT, frozenset(Scope))
        self._seen: dict[bytes, Caller | None] = {}
        self._used: set[UUID] = set()
        # Well-formed guesses reach the database, but never more than these at a time.
        self._look_ups = asyncio.Semaphore(LOOK_UPS_MAX)
        self._refresher = asyncio.create_task(self._keep_fresh())

    async def caller(self, text: str) -> Caller:
        """Who calls with this key. Raises `ApiKeyInvalid`."""
        remembers = len(text) <= DIGESTED_CHARS_MAX
        digest = self._digest(text) if remembers else rules.digest(self._pepper, text)
        if self._bootstrap is not None and hmac.compare_digest(digest, self._bootstrap):
            return self._bootstrap_caller
        caller = self._seen.get(digest)
        if caller is None and digest not in self._seen and rules.well_formed(text):
            caller = await self._look_up(digest)
        if caller is None:
            metrics.keys_rejected.inc()
            log.warning("api_key.rejected", prefix=text[:_SHOWN_OF_REJECTED])
            raise ApiKeyInvalid("this API key is not valid, has expired or was revoked")
        if caller.key_id is not None:
            self._used.add(caller.key_id)
        return caller

    async def close(self) -> None:
        self._refresher.cancel()
        await asyncio.gather(self._refresher, return_exceptions=True)
        await self._record_uses()

    async def _look_up(self, digest: bytes) -> Caller | None:
        try:
            async with asyncio.timeout(LOOK_UP_WAIT_SECONDS):
                await self._look_ups.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("API keys cannot be looked up at the moment") from None
        try:
            found = await service.callers(self._db, [digest])
        finally:
            self._look_ups.release()
        if len(self._seen) >= SEEN_MAX:  # somebody is guessing: forget the misses
            self._seen = {d: c for d, c in self._seen.items() if c is not None}
        self._seen[digest] = found.get(digest)
        return self._seen[digest]

    async def _keep_fresh(self) -> None:
        recorded_at = monotonic()
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self._refresh()
                if monotonic() - recorded_at >= RECORD_USES_SECONDS:
                    await self._record_uses()
                    recorded_at = monotonic()
            except Exception as error:  # noqa: BLE001 - the next round may find the database back
                log.warning("api_keys.refresh_failed", error=str(error))

    async def _refresh(self) -> None:
        if known := [digest for digest, caller in self._seen.items() if caller is not None]:
            self._seen = dict(await service.callers(self._db, known))
        else:
            self._seen = {}

    async def _record_uses(self) -> None:
        used, self._used = self._used, set()
        if used:
            try:
                await service.record_uses(self._db, used)
            except Exception as error:  # noqa: BLE001 - "last used" is a courtesy, not a duty
                log.warning("api_keys.uses_not_recorded", error=str(error))
