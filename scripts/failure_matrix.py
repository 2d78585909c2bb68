"""Bring about each fault in turn under light load, on servers of its own, and tell what came of it.

Exit 1 if anything that was accepted is lost, done twice, or not well again in time. It takes about
five minutes. The disk is only filled when root runs it, who may mount a small one; PostgreSQL's own
answer to a full disk is tried for everybody. `--markdown REPORT.md` puts the table into the report.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.failures import matrix
from tests.failures.faults import Fault


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="faults whose names hold these words")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the table to it, between its markers"
    )
    arguments = parser.parse_args()
    page = _read(arguments.markdown)
    if arguments.only and matrix.BEGIN in page:
        raise SystemExit(f"{arguments.markdown} takes the whole matrix: leave --only out")
    faults = [fault for fault in matrix.chosen() if arguments.only.lower() in fault.name.lower()]
    if not faults:
        raise SystemExit(f"no fault is named so: {arguments.only}")
    with tempfile.TemporaryDirectory(prefix="picopay-faults-") as folder:
        rows = asyncio.run(_tell(faults, Path(folder)))
    if arguments.markdown:
        table = "\n".join([matrix.HEAD, *map(matrix.line, rows)])
        arguments.markdown.write_text(matrix.placed(table, page))
    if not all(map(matrix.is_right, rows)):
        raise SystemExit(1)


def _read(file: Path | None) -> str:
    return file.read_text() if file is not None and file.exists() else ""


async def _tell(faults: list[Fault], folder: Path) -> list[matrix.Row]:
    rows: list[matrix.Row] = []
    print(matrix.HEAD, flush=True)
    async for row in matrix.rows(faults, folder):
        rows.append(row)
        print(matrix.line(row), flush=True)
    return rows


if __name__ == "__main__":
    main()
