"""An open transaction, and statements made of parts that share a round trip."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast
from uuid import UUID

import asyncpg
from sqlalchemy import CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection


class Part(NamedTuple):
    """A part of one statement, which later parts may read from by its name.

    It must return `rows` rows. Its parameters are written `%1`, `%2`, …: they are numbered through.
    """

    name: str
    sql: str
    arguments: Sequence[object]
    rows: int


class RowsMissing(AssertionError):
    """Some parts of a statement, `names`, did not return the rows they should have."""

    def __init__(self, counts: Mapping[str, tuple[int, int]]) -> None:
        self.names = {name for name, (got, wanted) in counts.items() if got != wanted}
        super().__init__(f"rows returned and wanted: {dict(counts)}")


@dataclass(frozen=True, slots=True)
class Tx:
    """`execute` for SQLAlchemy Core, `driver` and `write` for the hottest statements."""

    connection: AsyncConnection
    driver: asyncpg.Connection

    async def execute(
        self, statement: Executable, rows: Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        return await self.connection.execute(statement, rows)

    async def write(self, *parts: Part) -> None:
        """All parts in one round trip. Raises `RowsMissing`, and so fails the transaction."""
        sql = _as_one(tuple((part.name, part.sql, len(part.arguments)) for part in parts))
        arguments = [argument for part in parts for argument in part.arguments]
        counts = await self.driver.fetchrow(sql, *arguments)
        assert counts is not None
        if any(count != part.rows for count, part in zip(counts, parts, strict=True)):
            pairs = zip(parts, counts, strict=True)
            raise RowsMissing({part.name: (count, part.rows) for part, count in pairs})


@cache
def _as_one(parts: tuple[tuple[str, str, int], ...]) -> str:
    """One statement that counts the rows of (name, SQL, number of parameters)."""
    named: list[str] = []
    used = 0
    for name, sql, parameters in parts:
        numbered = sql
        for parameter in range(parameters, 0, -1):  # %1 is the beginning of %10
            numbered = numbered.replace(f"%{parameter}", f"${used + parameter}")
        named.append(f"{name} AS ({numbered})")
        used += parameters
    counts = [f"(SELECT count(*) FROM {name})" for name, _, _ in parts]  # noqa: S608 - ours
    return f"WITH {', '.join(named)} SELECT {', '.join(counts)}"


def bigints(numbers: Iterable[int]) -> str:
    """An array literal, for `%1::text::bigint[]`: the driver would look twice at each element."""
    return "{" + ",".join(map(str, numbers)) + "}"


def uuids(ids: Iterable[UUID]) -> str:
    """Likewise, for `%1::text::uuid[]`."""
    return "{" + ",".join(map(str, ids)) + "}"


def texts(values: Sequence[str | None]) -> str:
    """Likewise, for `%1::text::text[]`; but not for `= ANY(…)`, which might read each row anew."""
    if None not in values:
        joined = '","'.join(cast("Sequence[str]", values))
        if "\\" not in joined and joined.count('"') == 2 * (len(values) - 1):  # nothing to escape
            return f'{{"{joined}"}}'
    return "{" + ",".join(map(_quoted, values)) + "}"


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
