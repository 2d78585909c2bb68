"""The embedded PostgreSQL and Valkey of a data directory, shared by all who acquire them."""

import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from picopay.embedded.errors import EmbeddedError
from picopay.embedded.layout import (
    EPHEMERAL,
    PATH_BYTES_MAX,
    PERSISTENT,
    Layout,
    last_lines,
    open_log,
)
from picopay.embedded.locks import Lock
from picopay.embedded.status import Status, read

# Crash recovery of PostgreSQL may take this long; a keeper gives up a little earlier.
START_SECONDS_MAX = 120.0
_POLL_SECONDS = 0.01
_PROGRESS_SECONDS = 5.0
_KEEPERS_MAX = 3
_WATCH_SECONDS = 1.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Servers:
    database_url: str
    redis_url: str
    data_dir: Path
    ephemeral: bool
    created: bool  # this acquisition made the cluster


class Lease:
    """The servers run at least until this is released, or this process ends in any way."""

    def __init__(self, servers: Servers, users: Lock, keeper: Lock) -> None:
        self.servers = servers
        self._users = users
        self._keeper = keeper
        self._released = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._users.unlock()

    def watch(self, on_progress: Progress) -> None:
        """From now on, start a keeper anew should it be killed: ports and passwords stay."""
        threading.Thread(target=self._watch, args=(on_progress,), daemon=True).start()

    def _watch(self, on_progress: Progress) -> None:
        layout = Layout(self.servers.data_dir)
        while not self._released:
            time.sleep(_WATCH_SECONDS)
            if self._released or not self._keeper.try_shared():
                continue
            self._keeper.unlock()
            on_progress("the servers' keeper is gone: starting another")
            with contextlib.suppress(EmbeddedError, OSError):  # then at the next turn
                _await_servers(
                    layout,
                    secrets.token_hex(8),
                    _Patience(on_progress),
                    ephemeral=self.servers.ephemeral,
                )

    def stopped(self, timeout_seconds: float) -> bool:
        """Wait until the keeper is gone; False at once if others still use the servers."""
        assert self._released, "release first"
        deadline = time.monotonic() + timeout_seconds
        shared_before = False
        while time.monotonic() < deadline:
            alone = self._users.try_exclusive()
            shared = not alone and self._users.try_shared()
            gone = alone and self._keeper.try_shared()
            self._keeper.unlock()
            self._users.unlock()
            # Shared once may be a keeper that ended between the two tries; twice are others.
            if gone or (shared and shared_before):
                return gone
            shared_before = shared
            time.sleep(_POLL_SECONDS)
        return False


class _Patience:
    """A deadline, and a word to the waiting now and then."""

    def __init__(self, on_progress: Progress) -> None:
        self.tell = on_progress
        self._began = self._told = time.monotonic()

    def wait(self, awaited: str) -> None:
        now = time.monotonic()
        if now - self._began > START_SECONDS_MAX:
            raise EmbeddedError(f"gave up after {START_SECONDS_MAX:.0f} s of waiting for {awaited}")
        if now - self._told > _PROGRESS_SECONDS:
            self._told = now
            self.tell(f"still waiting for {awaited} ({now - self._began:.0f} s)")
        time.sleep(_POLL_SECONDS)


def acquire(
    data_dir: Path, *, ephemeral: bool = False, on_progress: Progress = lambda _: None
) -> Lease:
    """Use the servers of a data directory, and start them if nobody has.

    An ephemeral directory is deleted after its last user, however that one ends. Who joins one
    unasked is told so by `servers.ephemeral`.
    """
    layout = Layout(data_dir.expanduser().resolve())
    if len(os.fsencode(layout.root)) > PATH_BYTES_MAX:
        raise EmbeddedError(f"the path of the data directory is too long: {layout.root}")
    try:
        return _acquire(layout, on_progress, ephemeral=ephemeral)
    except OSError as error:
        raise EmbeddedError(f"cannot use the data directory {layout.root}: {error}") from error


def _acquire(layout: Layout, on_progress: Progress, *, ephemeral: bool) -> Lease:
    patience = _Patience(on_progress)
    users = _enter(layout, patience, ephemeral=ephemeral)
    starter = secrets.token_hex(8)
    try:
        told = _await_servers(layout, starter, patience, ephemeral=ephemeral)
        keeper = Lock(layout.keeper_lock)
    except BaseException:
        users.close()  # not when the traceback that holds it is forgotten
        raise
    created = told.created and told.starter == starter
    servers = Servers(told.database_url, told.redis_url, layout.root, told.ephemeral, created)
    return Lease(servers, users, keeper)


def _await_servers(layout: Layout, starter: str, patience: _Patience, *, ephemeral: bool) -> Status:
    keepers = 0
    while (told := read(layout.status)) is None:
        keeper = Lock(layout.keeper_lock)
        try:
            if keeper.try_exclusive():
                _refuse_loss(layout, ephemeral=ephemeral)
                _refuse_more(layout, keepers)
                keepers += 1
                patience.tell(f"starting PostgreSQL and Valkey in {layout.root}")
                _start_keeper(layout, keeper, starter, EPHEMERAL if ephemeral else PERSISTENT)
        finally:
            keeper.close()
        patience.wait(f"PostgreSQL and Valkey in {layout.root}")
    if told.error:
        raise EmbeddedError(told.error)
    _refuse_loss(layout, ephemeral=ephemeral)
    return told


def _refuse_more(layout: Layout, keepers: int) -> None:
    if keepers == _KEEPERS_MAX:
        raise EmbeddedError(
            f"the servers' keeper ended without a word, see {layout.keeper_log}:"
            f"{last_lines(layout.keeper_log)}"
        )


def _enter(layout: Layout, patience: _Patience, *, ephemeral: bool) -> Lock:
    """Become a user: hold the shared lock of a directory that nobody is deleting."""
    while True:
        # Not found: deleted just now, between two of these steps.
        with contextlib.suppress(FileNotFoundError):
            _make_directory(layout.root, layout.users_lock.name, may_be_deleted=ephemeral)
            users = Lock(layout.users_lock)
            if _join(users, layout):
                return users
            users.close()
        patience.wait(f"earlier servers in {layout.root} to stop")


def _join(users: Lock, layout: Layout) -> bool:
    if users.try_exclusive() and users.is_current() and not _may_begin(layout):
        return False
    # From exclusive to shared there is a gap, in which a keeper may come first: then try again.
    return users.try_shared() and users.is_current()


def _may_begin(layout: Layout) -> bool:
    """As the first user, let no ephemeral session that has ended reach into ours."""
    if not layout.ephemeral.exists():
        return True
    keeper = Lock(layout.keeper_lock)
    if not keeper.try_exclusive():
        keeper.close()  # it is about to delete everything
        return False
    layout.ephemeral.rename(layout.discard)
    keeper.close()
    return True


def _make_directory(root: Path, users_lock: str, *, may_be_deleted: bool) -> None:
    """Refuse a directory with files of others.

    Our first file and our last is the users' lock, and the kernel lists a small directory at
    one moment: a list without the lock is not one of ours half made or half deleted.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    harmless = set[str]() if may_be_deleted else {"lost+found"}
    names = set(os.listdir(root))  # noqa: PTH208  (its names are what we want)
    if users_lock not in names and names - harmless:
        raise EmbeddedError(
            f"{root} is not empty and not a data directory of PicoPay: choose an empty or new one"
        )


def _refuse_loss(layout: Layout, *, ephemeral: bool) -> None:
    if ephemeral and layout.holds_persistent_data():
        raise EmbeddedError(
            f"{layout.root} holds a database to keep, which an ephemeral run would delete: "
            "choose another data directory"
        )


def _start_keeper(layout: Layout, locked: Lock, starter: str, mode: str) -> None:
    """Hand on the lock with the file: there is no moment in which a second keeper could start."""
    module = ["-m", "picopay.embedded.keeper"]
    arguments = [str(layout.root), str(locked.fd), starter, mode]
    log = open_log(layout.keeper_log)
    try:
        subprocess.run(  # noqa: S603  (ourselves)
            [sys.executable, "-P", *module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            pass_fds=(locked.fd,),
            start_new_session=True,
            check=False,  # without a keeper we try again, and then tell
        )
    finally:
        os.close(log)
