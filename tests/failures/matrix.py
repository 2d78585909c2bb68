"""Each fault in turn under light load: what was lost, and how soon all was well again."""

import asyncio
import os
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from tests.failures.faults import FAULTS, FULL_DISK, Fault, until_stores_are_back
from tests.failures.field import Field, field
from tests.kill.senders import Sending, assert_all_is_processed, webhooks
from tests.kill.shoppers import Shopping, assert_all_is_right, load
from tests.races.load import Wish
from tests.races.truth import connected

SHOPPERS: Final = 4
SENDERS: Final = 2
PAUSE_SECONDS: Final = 0.05
BEFORE_SECONDS: Final = 1.5
AFTER_SECONDS: Final = 1.0
RECOVERED_SECONDS_MAX: Final = 30
# For two clusters and their log, and little else.
SMALL_DISK_MIB: Final = 160


class Row(NamedTuple):
    fault: Fault
    sent: int
    accepted: int
    unanswered: int  # or told to come again; asked again, every one was accepted
    lost: int
    doubled: int
    paused_seconds: float  # the longest time without a charge, for all who tried
    recovered_seconds: float
    wrong: str  # what else was not right


def chosen() -> list[Fault]:
    """All that this user can bring about: only root may mount a small disk."""
    return [*FAULTS, FULL_DISK] if os.geteuid() == 0 else FAULTS


async def rows(faults: Sequence[Fault], folder: Path) -> AsyncGenerator[Row]:
    """On servers of their own; the full disk, if it is asked for, on others, and last."""
    if usual := [fault for fault in faults if fault is not FULL_DISK]:
        async with field(_made(folder / "usual")) as at:
            for fault in usual:
                yield await _row(fault, at)
    if FULL_DISK in faults:
        async with small_disk(_made(folder / "small")) as at_folder, field(at_folder) as at:
            yield await _row(FULL_DISK, at)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o711)
    return folder


async def _row(fault: Fault, at: Field) -> Row:
    try:
        return await strike(fault, at)
    except AssertionError as error:
        return Row(fault, 0, 0, 0, 0, 0, 0, 0, _told(error))


def _told(error: AssertionError) -> str:
    """What was not so, and where: outside of pytest an assertion says little."""
    *_, frame = traceback.extract_tb(error.__traceback__)
    first, *_ = [*str(error).splitlines(), ""]
    return f"{first or frame.line} ({Path(frame.filename).name}:{frame.lineno})"


@asynccontextmanager
async def small_disk(folder: Path) -> AsyncGenerator[Path]:
    """The folder, with a small disk as the data directory in it."""
    data_dir = folder / "data"
    data_dir.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m,mode=0711"]
    await asyncio.to_thread(_command, "mount", *options, "tmpfs", str(data_dir))
    try:
        yield folder
    finally:
        await asyncio.to_thread(_command, "umount", "--lazy", str(data_dir))


def _command(*words: str) -> None:
    subprocess.run(words, check=True)


async def strike(fault: Fault, at: Field) -> Row:
    shopping, sending, moments = Shopping(), Sending(), list[float]()
    users = await at.by.new_users(SHOPPERS)
    (late_user,) = await at.by.new_users(1)
    async with (
        load(shopping, [at.by], users, moments, pause_seconds=PAUSE_SECONDS),
        webhooks(sending, at.by, senders=SENDERS),
    ):
        while not moments:  # noqa: ASYNC110 - for as long as a busy machine takes
            await asyncio.sleep(PAUSE_SECONDS)
        await asyncio.sleep(BEFORE_SECONDS)
        await fault.inject(at)
        ended = time.monotonic()
        await asyncio.gather(shopping.insist(at.by, Wish.of(late_user)), _processed(at, sending))
        recovered = time.monotonic() - ended
        await until_stores_are_back(at)
        await asyncio.sleep(AFTER_SECONDS)
    accepted = len(shopping.done) + len(sending.accepted)
    sent = shopping.asked.total() + sending.asked
    doubtful = sent - shopping.answered_well - sending.answered_well
    lost, doubled = await _miscounted(at, shopping, sending)
    wrong = await _wrong(at, shopping, sending, recovered)
    paused = max(later - earlier for earlier, later in pairwise(moments))
    return Row(fault, sent, accepted, doubtful, lost, doubled, paused, recovered, wrong)


async def _processed(at: Field, sending: Sending) -> None:
    """A webhook sent now is accepted and processed."""
    transaction = sending.next()
    await sending.insist(at.by, transaction)
    give_up_at = time.monotonic() + 2 * RECOVERED_SECONDS_MAX
    async with connected(at.site.database_url) as owner:
        while not await owner.fetchval(
            "SELECT processed_at IS NOT NULL FROM transfers WHERE transaction_id = $1",
            transaction.id,
        ):
            assert time.monotonic() < give_up_at, "never processed"
            await asyncio.sleep(0.05)


async def _miscounted(at: Field, shopping: Shopping, sending: Sending) -> tuple[int, int]:
    """(accepted and not there, there more than once), before anything is repeated."""
    async with connected(at.site.database_url) as owner:
        charges = Counter(
            row[0]
            for row in await owner.fetch(
                "SELECT idempotency_key FROM charges WHERE idempotency_key = ANY($1::text[])",
                list(shopping.asked),
            )
        )
        transfers = Counter(
            row[0]
            for row in await owner.fetch(
                "SELECT transaction_id FROM transfers WHERE transaction_id = ANY($1::text[])",
                list(sending.sent),
            )
        )
    lost = len(shopping.done - charges.keys()) + len(sending.accepted.keys() - transfers.keys())
    return lost, sum(count > 1 for found in (charges, transfers) for count in found.values())


async def _wrong(at: Field, shopping: Shopping, sending: Sending, recovered: float) -> str:
    """After everything was asked again: every charge and webhook once, and a clean ledger."""
    try:
        await shopping.ask_again(at.by)
        await sending.burst(at.by, list(sending.sent.values()))
        assert shopping.statuses <= {200, 503}, shopping.statuses
        await assert_all_is_processed(at.site.database_url, at.by, sending)
        await assert_all_is_right(at.site, shopping)
        assert recovered < RECOVERED_SECONDS_MAX, f"not well again for {recovered:.0f} s"
    except AssertionError as error:
        return _told(error)
    return ""


def is_right(row: Row) -> bool:
    return not (row.lost or row.doubled or row.wrong)


COLUMNS: Final = (
    *("fault", "how", "sent", "accepted", "lost", "doubled", "to be repeated"),
    *("longest pause", "well again"),
)
HEAD: Final = f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}"


def line(row: Row) -> str:
    told = f"{row.recovered_seconds:.1f} s" + (f"; WRONG: {row.wrong}" if row.wrong else "")
    counts = map(str, (row.sent, row.accepted, row.lost, row.doubled, row.unanswered))
    cells = (row.fault.name, row.fault.how, *counts, f"{row.paused_seconds:.1f} s", told)
    return f"| {' | '.join(cells)} |"


# In a page, the table stands between these; without them, it is the whole page.
BEGIN: Final = "<!-- failure matrix: scripts/failure_matrix.py --markdown REPORT.md -->"
END: Final = "<!-- end of the failure matrix -->"


def placed(table: str, page: str) -> str:
    """The page with the table in its place."""
    before, begun, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun:
        return f"{table}\n"
    assert ended, f"{END} is missing"
    return f"{before}{begun}\n\n{table}\n\n{ended}{after}"
