"""`picopay ledger check`: every slice's invariants, in one snapshot."""

from collections.abc import Generator
from contextlib import contextmanager

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from picopay.audit import Report, verify
from picopay.cli.context import AsJson, DataDir, show_json, with_db
from picopay.cli.errors import err
from picopay.infra.db import Db

app = typer.Typer(help="The ledger and its proof.", no_args_is_help=True)


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
    reports = with_db(data_dir, _verify)
    clean = not any(report.drifts for report in reports)
    if as_json:
        show_json({"clean": clean, "checks": [vars(report) for report in reports]})
    else:
        _print(reports, clean=clean)
    if not clean:
        raise typer.Exit(1)


async def _verify(db: Db) -> list[Report]:
    with _progress() as progress:
        task = progress.add_task("", total=None)

        def told(report: Report) -> None:
            progress.update(task, description=f"{report.claim}: {report.checked} checked")

        return await verify(db, told)


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
