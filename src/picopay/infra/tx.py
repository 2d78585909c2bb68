"""An open transaction, and writes that share a round trip."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection


class Write(NamedTuple):
    """An INSERT or UPDATE that ends in `RETURNING 1`, its arguments, and how many rows it writes.

    Parameters are written `%1`, `%2`, …: several writes can so become one statement.
    """

    sql: str
    arguments: Sequence[object]
    rows: int


@dataclass(frozen=True, slots=True)
class Tx:
    """`execute` for SQLAlchemy Core, `driver` and `write` for the hottest statements."""

    connection: AsyncConnection
    driver: asyncpg.Connection

    async def execute(
        self, statement: Executable, rows: Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        return await self.connection.execute(statement, rows)

    async def write(self, *writes: Write) -> None:
        """All of them in one trip; none sees what another does.

        Raises `AssertionError`, and so fails the transaction, unless each wrote all its rows.
        """
        sql = _as_one(tuple((write.sql, len(write.arguments)) for write in writes))
        arguments = [argument for write in writes for argument in write.arguments]
        counts = await self.driver.fetchrow(sql, *arguments)
        wanted = tuple(write.rows for write in writes)
        if counts is None or tuple(counts) != wanted:
            raise AssertionError(f"of {wanted} rows only {counts} were written")


@cache
def _as_one(statements: tuple[tuple[str, int], ...]) -> str:
    """The statements as parts of one that counts their rows, with parameters numbered through."""
    parts: list[str] = []
    used = 0
    for number, (sql, parameters) in enumerate(statements):
        for parameter in range(parameters, 0, -1):  # %1 is the beginning of %10
            sql = sql.replace(f"%{parameter}", f"${used + parameter}")  # noqa: PLW2901
        parts.append(f"written_{number} AS ({sql})")
        used += parameters
    counts = [f"(SELECT count(*) FROM written_{n})" for n in range(len(parts))]  # noqa: S608 - ours
    return f"WITH {', '.join(parts)} SELECT {', '.join(counts)}"


def bigints(numbers: Iterable[int]) -> str:
    """An array literal, for `%1::text::bigint[]`: the driver would look twice at each element."""
    return "{" + ",".join(map(str, numbers)) + "}"
