"""`picopay dead-letters`: look at what was given up, replay it, or discard it."""

import getpass
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import typer

from picopay.cli.context import AsJson, DataDir, show_json, with_db
from picopay.cli.errors import CommandFailed
from picopay.infra.db import Db
from picopay.outbox import dead_letters
from picopay.outbox.model import Chosen, DeadLetter, Note, Reason, Resolution
from picopay.outbox.schemas import DeadLetterFullOut, DeadLetterOut

app = typer.Typer(help="Events that were given up.", no_args_is_help=True)

_FORMATS: Final = ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"]

LetterId = Annotated[UUID, typer.Argument(help="Its id, from `picopay dead-letters list`.")]
Ids = Annotated[list[UUID] | None, typer.Argument(help="Their ids; or choose by options.")]
OfConsumer = Annotated[str | None, typer.Option(help="Only of this consumer.")]
OfType = Annotated[str | None, typer.Option("--type", help="Only events of this type.")]
ForReason = Annotated[Reason | None, typer.Option(help="Only given up for this reason.")]
After = Annotated[
    datetime | None, typer.Option(formats=_FORMATS, help="Only given up after this, UTC.")
]
Before = Annotated[
    datetime | None, typer.Option(formats=_FORMATS, help="Only given up before this, UTC.")
]
All = Annotated[bool, typer.Option("--all", help="Every open one.")]
Why = Annotated[str, typer.Option("--note", help="Why; kept with each, and in the audit.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count.")]


@app.command(name="list")
def list_(
    consumer: OfConsumer = None,
    type_: OfType = None,
    reason: ForReason = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Also resolved ones.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """The newest dead letters.

    Example: `picopay dead-letters list --reason exhausted`
    """
    chosen = Chosen(None, consumer, type_, reason)
    found = with_db(
        data_dir, lambda db: dead_letters.page(db, chosen, None, limit, resolved=resolved)
    )
    if as_json:
        show_json([asdict(DeadLetterOut.of(letter)) for letter in found[:limit]])
        return
    if not found:
        print("no dead letters")
    for letter in found[:limit]:
        _print(letter)
    if len(found) > limit:
        print(f"… and more: raise --limit above {limit}")


@app.command()
def show(letter_id: LetterId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """One dead letter, with what its event says.

    Example: `picopay dead-letters show 0197c5a4-6b1e-7c3a-9d55-0a4be3a1c001`
    """
    letter, body = with_db(data_dir, lambda db: dead_letters.show(db, letter_id))
    if as_json:
        show_json(asdict(DeadLetterFullOut.of(letter, body)))
        return
    _print(letter)
    print(f"  body {body.decode(errors='backslashreplace')}")


@app.command()
def replay(
    note: Why,
    ids: Ids = None,
    consumer: OfConsumer = None,
    type_: OfType = None,
    reason: ForReason = None,
    after: After = None,
    before: Before = None,
    all_: All = False,
    per_second: Annotated[
        float | None, typer.Option(min=0.001, max=10_000, help="Come due at this rate.")
    ] = None,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Hand them to their consumers once more; an effect that was there before is not repeated.

    Example: `picopay dead-letters replay --reason exhausted --note "bank is back" --dry-run`
    """
    chosen = _chosen(ids, (consumer, type_, reason), after, before, all_=all_)
    noted = Note(_actor(), Resolution.REPLAYED, note, per_second)
    _resolve(data_dir, chosen, noted, dry_run=dry_run, as_json=as_json)


@app.command()
def discard(
    note: Why,
    ids: Ids = None,
    consumer: OfConsumer = None,
    type_: OfType = None,
    reason: ForReason = None,
    after: After = None,
    before: Before = None,
    all_: All = False,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give them up for good; the letters stay, with who decided it and why.

    Example: `picopay dead-letters discard 0197c5a4-6b1e-7c3a-9d55-0a4be3a1c001 --note "test data"`
    """
    chosen = _chosen(ids, (consumer, type_, reason), after, before, all_=all_)
    noted = Note(_actor(), Resolution.DISCARDED, note)
    _resolve(data_dir, chosen, noted, dry_run=dry_run, as_json=as_json)


def _chosen(
    ids: list[UUID] | None,
    of: tuple[str | None, str | None, Reason | None],
    after: datetime | None,
    before: datetime | None,
    *,
    all_: bool,
) -> Chosen:
    chosen = Chosen(tuple(ids) if ids else None, *of, _utc(after), _utc(before))
    if all_ == any(value is not None for value in chosen):
        raise CommandFailed("say which dead letters: their ids, options that filter, or --all")
    return chosen


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=moment.tzinfo or UTC) if moment else None


def _actor() -> str:
    return f"cli:{getpass.getuser()}"


def _resolve(
    data_dir: Path | None, chosen: Chosen, note: Note, *, dry_run: bool, as_json: bool
) -> None:
    async def work(db: Db) -> tuple[int, int]:
        if dry_run:
            return await dead_letters.count(db, chosen), 0
        done = await dead_letters.resolve(db, chosen, note)
        return done, done

    matched, done = with_db(data_dir, work)
    if as_json:
        show_json({"matched": matched, "resolved": done, "dry_run": dry_run})
    elif dry_run:
        print(f"{matched} would be {note.resolution}")
    else:
        print(f"{done} {note.resolution}")


def _print(letter: DeadLetter) -> None:
    """Lines of its own for each: errors are long."""
    state = f"{letter.resolution} by {letter.resolved_by}" if letter.resolution else "open"
    halts = ", later events of it wait" if letter.halts and not letter.resolution else ""
    print(f"{letter.id}  {state}")
    print(f"  {letter.type} of {letter.aggregate}, for {letter.consumer}{halts}")
    print(f"  {letter.reason} at attempt {letter.attempts}, {letter.died_at:%Y-%m-%d %H:%M:%S}Z")
    print(f"  {letter.error}")
    if letter.note:
        print(f"  note: {letter.note}")
