"""Whatever fails, nothing that was accepted is lost or done twice, and all is well again soon."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.failures import matrix
from tests.failures.faults import FAULTS, Fault
from tests.failures.field import Field, field
from tests.races.truth import connected

pytestmark = pytest.mark.kill


@pytest.mark.nightly
@pytest.mark.timeout(1500)
async def test_no_fault_loses_or_doubles_anything(tmp_path: Path, noisy: None) -> None:
    faults = matrix.chosen()
    async with aclosing(matrix.rows(faults, tmp_path)) as rows:
        told = [row async for row in rows]
    assert [row.fault for row in told] == faults
    assert [matrix.line(row) for row in told if not matrix.is_right(row)] == []


@pytest.fixture
async def at(tmp_path: Path, made: Path, noisy: None) -> AsyncIterator[Field]:
    async with field(tmp_path, made) as at:
        yield at


BRIEF = [f for f in FAULTS if f.name in {"PostgreSQL only reads", "PostgreSQL half open"}]


async def test_a_few_faults_lose_nothing_and_a_loss_is_seen(at: Field) -> None:
    for fault in BRIEF:
        row = await matrix.strike(fault, at)
        assert matrix.is_right(row), matrix.line(row)
        assert 0 < row.accepted <= row.sent
    row = await matrix.strike(Fault("thief", "deletes a charge", _steal), at)
    assert (row.lost, bool(row.wrong)) == (1, True)
    assert not matrix.is_right(row)


async def _steal(at: Field) -> None:
    """The newest charge, its key and its posting are gone, as from a disk that lied."""
    async with connected(at.site.database_url) as owner:
        charge = await owner.fetchrow("SELECT id, idempotency_key FROM charges ORDER BY id DESC")
        assert charge is not None
        for table, column in (("charges", "id"), ("postings", "id")):
            await owner.execute(f"DELETE FROM {table} WHERE {column} = $1", charge["id"])  # noqa: S608 - ours
        await owner.execute(
            "DELETE FROM idempotency_keys WHERE key = $1", charge["idempotency_key"]
        )
