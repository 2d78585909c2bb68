"""The proof of the ledger: every slice's invariants in one snapshot, on demand and now and then."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from picopay.catalog import check as catalog
from picopay.charges import check as charges
from picopay.infra import metrics, sessions
from picopay.infra.checks import DRIFTS_NAMED_MAX, Invariant
from picopay.infra.db import Db
from picopay.infra.ids import process_name
from picopay.infra.logs import log
from picopay.infra.settings import Settings
from picopay.infra.tx import Tx
from picopay.ledger import check as ledger
from picopay.orders import check as orders
from picopay.outbox import service as outbox
from picopay.outbox.chores import ROUNDS_HELD, Rounds
from picopay.transfers import check as transfers

INVARIANTS: Final = (
    *ledger.INVARIANTS,
    *charges.INVARIANTS,
    *transfers.INVARIANTS,
    *catalog.INVARIANTS,
    *orders.INVARIANTS,
)
LOOK_SECONDS: Final = 60.0


@dataclass
class Report:
    name: str
    claim: str
    checked: int = 0
    drifts: int = 0
    named: list[str] = field(default_factory=list[str])


Told = Callable[[Report], None]


async def verify(db: Db, told: Told = lambda _: None) -> list[Report]:
    """All invariants as of one moment: writers go on, and are not seen. `told` hears of steps."""
    async with db.snapshot() as tx:
        return [await _verify(tx, invariant, told) for invariant in INVARIANTS]


async def _verify(tx: Tx, invariant: Invariant, told: Told) -> Report:
    report = Report(invariant.name, invariant.claim)
    told(report)
    async for finding in invariant.findings(tx):
        report.checked += finding.checked
        report.drifts += len(finding.drifts)
        report.named = [*report.named, *finding.drifts][:DRIFTS_NAMED_MAX]
        told(report)
    return report


class Auditor:
    """One of the processes that show metrics checks the ledger every so often, and shows drifts.

    The others show none: what they found before may have been mended since.
    """

    def __init__(self, settings: Settings) -> None:
        assert settings.database_url is not None
        self._url = settings.database_url
        self._owner = process_name()
        self._every_seconds = settings.ledger_check_interval_seconds
        self._look_seconds = min(LOOK_SECONDS, self._every_seconds)
        # Not at once: whoever starts has more urgent work.
        self._due_at = monotonic() + self._look_seconds
        self._mine = False
        self._rounds = Rounds(("audit", self._look_seconds, self._look))

    async def stop(self) -> None:
        await self._rounds.stop()

    async def _look(self) -> None:
        if not self._mine and monotonic() < self._due_at:
            return
        db = Db(
            self._url,
            pool_size=1,
            max_overflow=0,
            command_timeout_seconds=None,  # a large ledger takes its time
            session=sessions.BACKGROUND,
        )
        try:
            held_seconds = ROUNDS_HELD * self._look_seconds
            self._mine = await outbox.hold_duty(db, "audit", self._owner, held_seconds)
            if not self._mine:
                _show([])
            elif monotonic() >= self._due_at:
                with metrics.ledger_check_seconds.time():
                    _show(await verify(db))
                self._due_at = monotonic() + self._every_seconds
        finally:
            await db.close()


def auditors(settings: Settings) -> list[Auditor]:
    """For a process that shows metrics: one, or none if the ledger is not to be checked."""
    return [Auditor(settings)] if settings.ledger_check_interval_seconds else []


def _show(reports: Sequence[Report]) -> None:
    """What was found; without reports, that somebody else looks."""
    found = {report.name: report.drifts for report in reports}
    for invariant in INVARIANTS:
        drifts = found.get(invariant.name, 0)
        metrics.ledger_drift.labels(invariant.name).set(drifts)
        if drifts:
            log.error("ledger.drift", invariant=invariant.name, drifts=drifts)
    if reports:
        metrics.ledger_checked.set_to_current_time()
    else:
        metrics.ledger_checked.set(0)
