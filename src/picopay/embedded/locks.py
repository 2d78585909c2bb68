"""Lock files: the kernel drops a lock when its holder dies, however it dies."""

import fcntl
import os
from pathlib import Path


class Lock:
    """One open lock file. It is never inherited by a program that this process starts."""

    def __init__(self, path: Path, *, opened: int | None = None) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self.fd = os.open(path, flags, 0o600) if opened is None else opened
        os.set_inheritable(self.fd, False)  # noqa: FBT003  (its only form)

    def try_exclusive(self) -> bool:
        return self._try(fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        return self._try(fcntl.LOCK_SH)

    def unlock(self) -> None:
        """Drops the lock for forked children too, which share it."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def is_current(self) -> bool:
        """Tell whether the path still leads to this file: an ephemeral directory is deleted."""
        try:
            return os.path.samestat(os.fstat(self.fd), self._path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Closes without unlocking: a keeper that was handed the file keeps the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            os.close(self.fd)

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
