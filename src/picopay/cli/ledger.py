"""`picopay ledger check`: every slice's invariants, in one snapshot."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from picopay.catalog import check as catalog
from picopay.charges import check as charges
from picopay.cli.context import AsJson, DataDir, show_json, with_db
from picopay.cli.errors import err
from picopay.infra.checks import DRIFTS_NAMED_MAX, Invariant
from picopay.infra.db import Db
from picopay.infra.tx import Tx
from picopay.ledger import check as ledger
from picopay.orders import check as orders
from picopay.transfers import check as transfers

app = typer.Typer(help="The ledger and its proof.", no_args_is_help=True)

INVARIANTS: Final = (
    *ledger.INVARIANTS,
    *charges.INVARIANTS,
    *transfers.INVARIANTS,
    *catalog.INVARIANTS,
    *orders.INVARIANTS,
)


@dataclass
class Report:
    name: str
    claim: str
    checked: int = 0
    drifts: int = 0
    named: list[str] = field(default_factory=list[str])


@app.callback()
def _ledger() -> None: ...


@app.command()
def check(
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Verify every invariant, on a live system too; exit 1 and name the drift if one is broken.

    Example: `picopay ledger check --json`
    """
    reports = with_db(data_dir, verify)
    clean = not any(report.drifts for report in reports)
    if as_json:
        show_json({"clean": clean, "checks": [vars(report) for report in reports]})
    else:
        _print(reports, clean=clean)
    if not clean:
        raise typer.Exit(1)


async def verify(db: Db) -> list[Report]:
    """All invariants as of one moment: writers go on, and are not seen."""
    async with db.snapshot() as tx:
        with _progress() as progress:
            return [await _verify(tx, invariant, progress) for invariant in INVARIANTS]


async def _verify(tx: Tx, invariant: Invariant, progress: Progress) -> Report:
    report = Report(invariant.name, invariant.claim)
    task = progress.add_task(invariant.claim, total=None)
    async for finding in invariant.findings(tx):
        report.checked += finding.checked
        report.drifts += len(finding.drifts)
        report.named = [*report.named, *finding.drifts][:DRIFTS_NAMED_MAX]
        progress.update(task, description=f"{invariant.claim}: {report.checked} checked")
    progress.update(task, total=1, completed=1)
    return report


@contextmanager
def _progress() -> Generator[Progress]:
    """On standard error, and only for a person."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        yield progress


def _print(reports: list[Report], *, clean: bool) -> None:
    for report in reports:
        verdict = "ok   " if not report.drifts else "DRIFT"
        print(f"{verdict}  {report.name:<14} {report.checked:>12,}  {report.claim}")
        for drift in report.named:
            print(f"       {drift}")
        if report.drifts > len(report.named):
            print(f"       … and {report.drifts - len(report.named)} more")
    print("\nThe ledger is clean." if clean else "\nThe ledger has drifted.")
