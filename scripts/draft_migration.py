"""Draft the next migration from the models, against a scratch database of the embedded servers.

Usage: make migration M="what it does". Read the draft before committing it: grants for
picopay_app are never drafted.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from picopay import schema
from picopay.embedded.servers import acquire


def draft(message: str) -> None:
    revisions = list(ScriptDirectory.from_config(schema.config()).walk_revisions())
    revision = f"{len(revisions) + 1:04d}"

    def work(connection: Connection) -> None:
        command.upgrade(schema.config(connection), "head")
        command.revision(schema.config(connection), message, autogenerate=True, rev_id=revision)

    with (
        tempfile.TemporaryDirectory(prefix="picopay-draft-") as directory,
        acquire(Path(directory) / "data", ephemeral=True) as lease,
    ):
        asyncio.run(schema.as_owner(lease.servers.database_url, work))


if __name__ == "__main__":
    if not sys.argv[1:] or not sys.argv[1]:
        sys.exit('say what the migration does: make migration M="add refunds"')
    draft(sys.argv[1])
