"""The loop that moves events: claim, hand to the consumer, settle. Any number run side by side.

Each consumer has a lane of its own, with its own slots, so none waits for another. Leases are
renewed while handlers run; a handler that hangs is stopped at its deadline.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple

from picopay.infra import metrics
from picopay.infra.db import (
    CommitInDoubt,
    ConnectionLost,
    DatabaseUnavailable,
    Db,
    OutcomeUnknown,
)
from picopay.infra.gathering import Gatherer
from picopay.infra.logs import log, request_id_var
from picopay.infra.sqlstates import WAITED, sqlstate
from picopay.kernel.errors import Overloaded, Refused
from picopay.outbox import rules, service
from picopay.outbox.bell import Bell
from picopay.outbox.consumer import Consumer, call
from picopay.outbox.errors import LeaseLost, Permanent
from picopay.outbox.model import Claim, Holder, Key
from picopay.outbox.pace import LOOK_BACK_SECONDS, POLL_SECONDS_MAX, Pace
from picopay.outbox.rules import Bury, DeferFor, Policy, RetryIn

STORE_PAUSE_SECONDS_MAX: Final = 5.0
# A batch that met a lock waits for it no more than this in each of its parts, or else a batch of
# nothing but locked ones would keep its slot for long.
LOCK_AGAIN_MS: Final = 25
LATE_SECONDS_MAX: Final = 2.0  # past the grace of a stop: for who is cancelled, for giving back
HELD_LEASES_MAX: Final = 20  # how many leases in a row a claim may last
_OUTCOME: Final = {RetryIn: "retried", DeferFor: "deferred", Bury: "buried"}
# Log events; see docs/reference/logs.md.
CLAIM_FAILED: Final = "outbox.claim_failed"
SETTLE_FAILED: Final = "outbox.settle_failed"
_AWAY: Final = (ConnectionLost, DatabaseUnavailable, CommitInDoubt)
# Refusals that another attempt may not meet; all others are for good.
_PASSING: Final = (Overloaded, OutcomeUnknown)


class Terms(NamedTuple):
    """What all lanes of a worker share."""

    holder: Holder
    policy: Policy
    chance: Callable[[], float]  # from 0 to 1


class Relay:
    def __init__(self, db: Db, consumers: Sequence[Consumer], terms: Terms, bell: Bell) -> None:
        self._lanes = [
            _Lane(db, consumer, terms, bell.listener(consumer.name)) for consumer in consumers
        ]

    async def stop(self, grace_seconds: float) -> None:
        """Claim nothing more, finish what is in hand, give back what does not finish in time."""
        await asyncio.gather(*(lane.stop(grace_seconds) for lane in self._lanes))


class _Lane:
    """One consumer's events, a slot for each batch, or each event that is handled alone."""

    def __init__(self, db: Db, consumer: Consumer, terms: Terms, heard: asyncio.Event) -> None:
        self._db = db
        self._consumer = consumer
        self._terms = terms
        self._heard = heard
        self._lease_seconds = terms.holder.lease_seconds
        self._pace = Pace(heard, terms.chance)
        self._stopping = False
        self._held: dict[Key, Claim] = {}
        self._claimed_at: dict[Key, float] = {}
        self._work: set[asyncio.Task[None]] = set()
        # Of what was handled alone: those that end at one time are acknowledged in one transaction.
        self._done = Gatherer("acknowledgements", self._acknowledge_all)
        self._settling: set[Key] = set()
        self._slot_free = asyncio.Event()
        self._failures = 0
        self._poll = asyncio.create_task(self._run())
        self._renewals = asyncio.create_task(self._renew())

    async def stop(self, grace_seconds: float) -> None:
        self._stopping = True
        self._heard.set()
        self._slot_free.set()
        give_up_at = monotonic() + grace_seconds
        await _ended_by(give_up_at, {self._poll})
        await _ended_by(give_up_at, self._work)
        if self._held:
            left_seconds = max(LATE_SECONDS_MAX, give_up_at - monotonic())
            await self._hand_back(list(self._held.values()), left_seconds)
        self._renewals.cancel()  # last: until now others must not take what was in hand

    async def _run(self) -> None:
        while not self._stopping:
            if (room := self._room()) == 0:
                self._slot_free.clear()
                await self._slot_free.wait()
                continue
            claims = await self._claim(room)
            if any(claim.silent for claim in claims):
                await self._handle_by_itself(claims)
                continue
            for batch in self._batches(claims):
                self._begin(self._handle(batch))
            if rules.is_all(claims, room):
                await self._pace.rest(self._next_due_seconds)

    async def _handle_by_itself(self, claims: Sequence[Claim]) -> None:
        """It may end this process: the attempt of nothing else is to be lost with it."""
        await self._nothing_in_hand()
        if not self._stopping:
            self._begin(self._handle(claims))
            await self._nothing_in_hand()

    async def _nothing_in_hand(self) -> None:
        while self._work and not self._stopping:
            self._slot_free.clear()
            await self._slot_free.wait()

    def _room(self) -> int:
        slots = self._consumer.concurrency - len(self._work)
        return slots * self._consumer.batch_max if self._consumer.together else slots

    def _batches(self, claims: Sequence[Claim]) -> list[Sequence[Claim]]:
        size = self._consumer.batch_max if self._consumer.together else 1
        return [claims[first : first + size] for first in range(0, len(claims), size)]

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._slot_free.set()

    async def _claim(self, room: int) -> list[Claim]:
        began, back = monotonic(), self._pace.look_back_seconds()
        try:
            claims = await service.claim(self._db, self._consumer, room, self._terms.holder, back)
        except Exception as error:  # noqa: BLE001 - the loop goes on, whatever the database says
            await self._store_failed(CLAIM_FAILED, error)
            return []
        self._failures = 0
        everything = rules.is_all(claims, room)
        self._pace.looked(back, began=began, found=len(claims), is_all=everything)
        now = monotonic()
        for claim in claims:
            self._held[claim.key] = claim
            self._claimed_at[claim.key] = now
        return claims

    async def _next_due_seconds(self) -> float | None:
        try:
            return await service.next_due_seconds(self._db, self._consumer, LOOK_BACK_SECONDS)
        except Exception:  # noqa: BLE001 - the next claim will meet it too, and tell
            return None

    async def _handle(self, claims: Sequence[Claim]) -> None:
        """Settle all of them, one way or the other."""
        try:
            spent = [c for c in claims if rules.is_spent(c.attempts, self._terms.policy)]
            for claim in spent:
                await self._bury_spent(claim)
            if rest := [claim for claim in claims if claim not in spent]:
                await self._attempt(rest)
        except _AWAY as error:
            await self._store_failed(SETTLE_FAILED, error)
            await self._hand_back(claims, self._lease_seconds)
        except Exception as error:  # noqa: BLE001 - the leases run out, and others try
            await self._store_failed(SETTLE_FAILED, error)
        finally:
            if not self._stopping:
                self._drop(claim.key for claim in claims)

    async def _attempt(self, claims: Sequence[Claim], *, hurried: bool = False) -> None:
        """Together if possible, then by halves: who fails, fails alone."""
        try:
            error = await self._outcome(claims, LOCK_AGAIN_MS if hurried else None)
        except LeaseLost as lost:
            self._count_lost(lost.keys)
            if rest := [claim for claim in claims if claim.key not in lost.keys]:
                await self._attempt(rest, hurried=hurried)
            return
        if error is None:
            self._count_done(claims)
        elif len(claims) == 1:
            await self._fail(claims[0], error)
        else:
            for half in rules.halves(claims):
                await self._attempt(half, hurried=hurried or sqlstate(error) in WAITED)

    async def _outcome(
        self, claims: Sequence[Claim], lock_timeout_ms: int | None
    ) -> BaseException | None:
        """None if they were handled. Raises `LeaseLost`, and what tells that the store is away."""
        request_id_var.set(claims[0].event.request_id if len(claims) == 1 else None)
        try:
            async with asyncio.timeout(self._consumer.deadline_seconds):
                if self._consumer.alone is not None:
                    await call(self._consumer, claims[0].event)
                else:
                    work = partial(service.handle_together, self._db, self._consumer, claims)
                    await self._db.retrying(partial(work, lock_timeout_ms=lock_timeout_ms))
            if self._consumer.alone is not None:  # past its deadline too, which is its handler's
                await self._acknowledge(claims[0])
        except (LeaseLost, *_AWAY):
            raise
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            return error
        return None

    async def _acknowledge(self, claim: Claim) -> None:
        self._settling.add(claim.key)
        try:
            mine = await self._done.submit(claim)
        finally:
            self._settling.discard(claim.key)
        if not mine:
            raise LeaseLost([claim.key])

    async def _acknowledge_all(self, claims: Sequence[Claim]) -> list[bool]:
        mine = await self._db.retrying(lambda: service.acknowledge(self._db, claims))
        return [claim.key in mine for claim in claims]

    async def _fail(self, claim: Claim, error: BaseException) -> None:
        if isinstance(error, Refused) and not isinstance(error, _PASSING):
            error = Permanent(f"{error.code}: {error.detail}")
        policy, chance = self._terms.policy, self._terms.chance()
        if sqlstate(error) in WAITED:
            error = rules.after_waiting(rules.text_of(error), claim.attempts, policy, chance)
        verdict = rules.after_failure(error, claim.attempts, policy, chance)
        metrics.outbox_attempts.labels(self._consumer.name, _OUTCOME[type(verdict)]).inc()
        if not isinstance(verdict, DeferFor):
            metrics.worker_errors.inc()
            self._tell(claim, verdict, error)
        try:
            await self._db.retrying(
                lambda: service.fail(self._db, self._consumer, claim, error, verdict)
            )
        except LeaseLost as lost:
            self._count_lost(lost.keys)
        else:
            if isinstance(verdict, Bury):
                metrics.dead_letters.labels(verdict.reason).inc()

    async def _bury_spent(self, claim: Claim) -> None:
        reason, why = rules.last_word(claim.attempts, claim.error)
        log.error("outbox.dead_letter", **rules.about(claim), reason=reason, error=why)
        try:
            await self._db.retrying(
                lambda: service.bury(self._db, self._consumer, claim, reason, why)
            )
        except LeaseLost as lost:
            self._count_lost(lost.keys)
        else:
            metrics.dead_letters.labels(reason).inc()

    def _tell(self, claim: Claim, verdict: object, error: BaseException) -> None:
        text = rules.text_of(error)
        if isinstance(verdict, Bury):
            about = rules.about(claim)
            log.error("outbox.dead_letter", **about, reason=verdict.reason, error=text)
        else:
            log.warning("outbox.attempt_failed", **rules.about(claim), error=text)

    async def _renew(self) -> None:
        """While handlers run. A renewal that fails is tried again; the fence decides."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            # Not for ever: one that swallows its deadline must not keep others from trying.
            since = monotonic() - HELD_LEASES_MAX * self._lease_seconds
            held = [claim for key, claim in self._held.items() if self._claimed_at[key] > since]
            if not held:
                continue
            try:
                async with asyncio.timeout(self._lease_seconds / 3):
                    kept = await service.renew(self._db, held, self._lease_seconds)
            except Exception as error:  # noqa: BLE001 - there is time for another
                log.warning("outbox.renewal_failed", error=rules.text_of(error))
            else:
                # Those that are being settled are locked, or gone: not lost. Of what is handled
                # together, nobody knows here which these are.
                if self._consumer.alone is not None:
                    self._count_lost({claim.key for claim in held} - kept - self._settling)

    async def _hand_back(self, claims: Sequence[Claim], seconds_max: float) -> None:
        """So that others need not wait for the leases to end; which they do if this fails."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                while True:
                    try:
                        return await service.release(self._db, claims)
                    except Exception:  # noqa: BLE001 - most likely the database is away
                        await asyncio.sleep(POLL_SECONDS_MAX)

    async def _store_failed(self, event: str, error: BaseException) -> None:
        """Told once a failure, and with longer and longer pauses."""
        metrics.worker_errors.inc()
        log.error(event, consumer=self._consumer.name, error=rules.text_of(error))
        self._failures += 1
        await asyncio.sleep(min(0.1 * 2**self._failures, STORE_PAUSE_SECONDS_MAX))

    def _count_done(self, claims: Sequence[Claim]) -> None:
        metrics.outbox_attempts.labels(self._consumer.name, "done").inc(len(claims))
        now = monotonic()
        for claim in claims:
            since = self._claimed_at.get(claim.key, now)
            metrics.outbox_end_to_end.observe(claim.late_seconds + now - since)
        self._drop(claim.key for claim in claims)

    def _count_lost(self, keys: Collection[tuple[str, str, int]]) -> None:
        """Once each, whoever notices first: the renewal, or who settles."""
        if lost := self._held.keys() & keys:
            metrics.leases_lost.inc(len(lost))
            log.warning("outbox.lease_lost", consumer=self._consumer.name, events=len(lost))
            self._drop(lost)

    def _drop(self, keys: Iterable[Key]) -> None:
        for key in list(keys):
            self._held.pop(key, None)
            self._claimed_at.pop(key, None)


async def _ended_by(give_up_at: float, tasks: Collection[asyncio.Task[None]]) -> None:
    """Who has not ended by then is cancelled, and not waited for long."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=max(0.0, give_up_at - monotonic()))
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=LATE_SECONDS_MAX)
