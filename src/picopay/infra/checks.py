"""Invariants that can be verified on a live system: read-only SQL that names every drift."""

from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

from picopay.infra.tx import Tx

# Drifts named for each invariant; beyond that, knowing there are more is enough.
DRIFTS_NAMED_MAX: Final = 20


class Finding(NamedTuple):
    """A step of a check: how much it looked at, and each thing that is not as it must be."""

    checked: int
    drifts: list[str]


class Invariant(NamedTuple):
    """`claim` says what holds; `findings` looks, in steps of bounded memory."""

    name: str
    claim: str
    findings: Callable[[Tx], AsyncIterator[Finding]]


def by_query(name: str, claim: str, *, checked: str, drifts: str) -> Invariant:
    """An invariant that two statements verify: a count, and one text for each drift.

    `drifts` runs on the server, which spills to disk what does not fit its memory; what comes
    back is bounded.
    """

    async def findings(tx: Tx) -> AsyncIterator[Finding]:
        count = await tx.driver.fetchval(checked)
        rows = await tx.driver.fetch(f"{drifts} LIMIT {DRIFTS_NAMED_MAX}")
        yield Finding(count, [row[0] for row in rows])

    return Invariant(name, claim, findings)
