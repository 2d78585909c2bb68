"""The folder through which the server processes share their metrics, gone when the last one is.

Whoever uses a folder holds its lock, which the kernel drops however he ends: so what killed
servers have left behind can be told from what is in use.
"""

import atexit
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from picopay.embedded.locks import Lock
from picopay.infra import environment

_PREFIX: Final = "picopay-metrics-"
_LOCK: Final = "lock"


@contextmanager
def shared() -> Generator[None]:
    """For the supervisor: the processes that it starts meanwhile share a new folder."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        _delete_if_abandoned(path.parent)
    folder, lock = _make()
    environment.share_metrics(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def hold() -> None:
    """For a server process: it outlives a supervisor that was killed by the requests it has."""
    folder = environment.metrics_folder()
    assert folder is not None, "the supervisor has made one"
    lock = Lock(folder / _LOCK)
    lock.try_shared()
    atexit.register(lock.close)  # and is referred to until then


def _make() -> tuple[Path, Lock]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = Lock(folder / _LOCK)
        if lock.try_shared() and lock.is_current():
            return folder, lock
        # Another server, starting now, saw it before it was locked, and deletes it.


def _delete_if_abandoned(folder: Path) -> None:
    with suppress(FileNotFoundError):  # another server, starting now, was quicker
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return
        lock = Lock(folder / _LOCK)
        if lock.try_exclusive():
            shutil.rmtree(folder, ignore_errors=True)
        lock.close()
