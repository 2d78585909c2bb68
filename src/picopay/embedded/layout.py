"""What lies where in a data directory, and how its files are written."""

import contextlib
import os
import shutil
import time
from pathlib import Path

# What the first user asks of a directory without data.
EPHEMERAL, PERSISTENT = "ephemeral", "persistent"
LOG_BYTES_MAX = 10 * 1024 * 1024
LOG_LINES_SHOWN = 8
# PostgreSQL keeps paths in 1024 bytes (MAXPGPATH) and appends its own file names to this one.
PATH_BYTES_MAX = 800
_DELETE_TRIES = 100
_DELETE_PAUSE_SECONDS = 0.02


class Layout:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.users_lock = root / "users.lock"
        self.keeper_lock = root / "keeper.lock"
        self.status = root / "servers.json"
        self.keeper_log = root / "keeper.log"
        # Present while everything here is to be deleted after the last user.
        self.ephemeral = root / "ephemeral"
        # Present while leftovers of an ephemeral session wait to be deleted by the next keeper.
        self.discard = root / "discard"
        self.gitignore = root / ".gitignore"
        self.password = root / "password"
        self.postgres = root / "postgres"
        self.pgdata = self.postgres / "pgdata"
        self.postgres_port = root / "postgres.port"
        self.postgres_log = root / "postgres.log"
        self.valkey = root / "valkey"
        self.valkey_password = root / "valkey.password"
        self.valkey_port = root / "valkey.port"
        self.valkey_log = root / "valkey.log"

    def holds_persistent_data(self) -> bool:
        doomed = self.ephemeral.exists() or self.discard.exists()
        return self.pgdata.exists() and not doomed

    def discard_leftovers(self) -> None:
        """Empty the directory for a new session; the marker goes last, so a crash repeats this."""
        kept = {self.users_lock, self.keeper_lock, self.keeper_log, self.discard}
        _delete(self.root, kept)
        self.discard.unlink()

    def delete(self) -> None:
        """Delete all, the lock of the users last, under which this must be called.

        Someone who arrives after that makes a lock file of its own, in a directory that is
        empty: then it is theirs, and stays.
        """
        last = [self.ephemeral, self.keeper_lock, self.users_lock]
        _delete(self.root, set(last))
        for path in last:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.root.rmdir()


def _delete(root: Path, kept: set[Path]) -> None:
    """Again and again, because an orphan of a killed server may still write its last."""
    for _ in range(_DELETE_TRIES):
        for path in set(root.iterdir()) - kept:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if set(root.iterdir()) <= kept:
            return
        time.sleep(_DELETE_PAUSE_SECONDS)


def write_private(path: Path, text: str, uid: int = -1, gid: int = -1) -> None:
    """Whole or not at all, and readable by its owner alone."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123  (a descriptor, not a path)
        os.fchown(fd, uid, gid)
        file.write(text)
        file.flush()
        os.fsync(fd)
    new.replace(path)


def open_log(path: Path) -> int:
    """Open for appending; a long log starts anew, and one older log is kept."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(path.name + ".1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def read_log(path: Path, start: int = 0) -> str:
    with contextlib.suppress(OSError), path.open("rb") as log:
        log.seek(start)
        return log.read().decode(errors="replace")
    return ""


def last_lines(path: Path, start: int = 0) -> str:
    lines = read_log(path, start).strip().splitlines()[-LOG_LINES_SHOWN:]
    return "".join(f"\n  {line}" for line in lines)
