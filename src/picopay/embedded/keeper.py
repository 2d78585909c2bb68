"""The parent of both servers of one data directory: `python -m picopay.embedded.keeper DIR …`.

Whoever uses the directory holds a shared lock on `users.lock` and starts a keeper if there is
none, handing it the locked `keeper.lock`. The keeper stops the servers and ends when it gets the
users' lock exclusively, which the kernel grants when the last user is gone, killed or not. It
holds that lock until it has ended, so that a newcomer waits, and then starts a keeper anew.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from picopay.embedded import binaries, postgres, status
from picopay.embedded.errors import EmbeddedError
from picopay.embedded.layout import EPHEMERAL, Layout, write_private
from picopay.embedded.locks import Lock
from picopay.embedded.postgres import Postgres, ensure_cluster
from picopay.embedded.privileges import Account, choose_account, with_capability
from picopay.embedded.server import Server, log
from picopay.embedded.valkey import Valkey

_POLL_SECONDS, _WATCH_SECONDS = 0.005, 0.05
# A failure stays readable for this long, or until everybody has gone.
_FAILURE_SECONDS = 2.0


class Unwanted(Exception):
    """Nobody uses the servers any more, or we were told to end."""


class Keeper:
    def __init__(self, layout: Layout, starter: str) -> None:
        self._layout = layout
        self._starter = starter
        self._users = Lock(layout.users_lock)
        self._alone = False
        self._terminated = False
        self._servers: list[Server] = []
        self._vouching: Lock | None = None

    def terminate(self, *_: object) -> None:
        self._terminated = True

    def run(self, *, ephemeral: bool) -> None:
        try:
            self._start(ephemeral=ephemeral)
            self._watch()
        except Unwanted:
            log("told to end" if self._terminated else "nobody is here any more")
        except (EmbeddedError, OSError) as error:
            self._fail(str(error))
        finally:
            self._stop()

    def _start(self, *, ephemeral: bool) -> None:
        layout = self._layout
        found = binaries.find()
        _clean(layout, found)
        if ephemeral and not layout.pgdata.exists():
            layout.ephemeral.touch(0o600)
        if not layout.gitignore.exists():
            write_private(layout.gitignore, "*\n")
        account = _prepare_directories(layout, found)
        valkey = Valkey(layout, found.valkey, account)
        database, cache = (
            Server(Postgres(layout, found.postgres), account),
            Server(valkey, account),
        )
        self._servers = [database, cache]
        created = ensure_cluster(layout, found, account, self._pause)
        for server in self._servers:
            server.start(self._pause)
        self._publish(
            created=created,
            database_url=postgres.database_url(layout.password.read_text(), database.port),
            redis_url=f"redis://:{valkey.password()}@127.0.0.1:{cache.port}/0",
        )
        log(f"serving with PostgreSQL on port {database.port} and Valkey on port {cache.port}")

    def _watch(self) -> None:
        while True:
            self._pause(_WATCH_SECONDS)
            for server in self._servers:
                server.tend(self._pause)

    def _pause(self, seconds: float = _POLL_SECONDS) -> None:
        time.sleep(seconds)
        self._alone = self._users.try_exclusive()
        if self._terminated or self._alone:
            raise Unwanted

    def _publish(
        self, *, created: bool = False, database_url: str = "", redis_url: str = "", error: str = ""
    ) -> None:
        content = status.Status(
            keeper=os.getpid(),
            starter=self._starter,
            ephemeral=self._layout.ephemeral.exists(),
            created=created,
            database_url=database_url,
            redis_url=redis_url,
            error=error,
        )
        self._vouching = status.publish(self._layout.status, content)

    def _fail(self, error: str) -> None:
        log(error)
        self._publish(error=error)
        deadline = time.monotonic() + _FAILURE_SECONDS
        with contextlib.suppress(Unwanted):
            while time.monotonic() < deadline:
                self._pause(_WATCH_SECONDS)

    def _stop(self) -> None:
        self._layout.status.unlink(missing_ok=True)
        for server in self._servers:
            server.ask_to_stop()
        for server in self._servers:
            server.stop()
        log("stopped")
        alone = self._alone or self._users.try_exclusive()
        if alone and self._layout.ephemeral.exists():
            self._layout.delete()


def main() -> None:
    root, keeper_lock, starter, mode = sys.argv[1:]
    if os.fork() > 0:
        # Whoever started us waits for this one only, and never has a zombie of ours.
        os._exit(0)
    os.umask(0o077)
    layout = Layout(Path(root))
    _held = Lock(layout.keeper_lock, opened=int(keeper_lock))
    keeper = Keeper(layout, starter)
    _handle_signals(keeper)
    keeper.run(ephemeral=mode == EPHEMERAL)
    # The kernel drops the locks when the process is as good as gone; Python would drop them before.
    os._exit(0)


def _handle_signals(keeper: Keeper) -> None:
    """Undo what our starter blocked or ignored, and outlive its terminal."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, keeper.terminate)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ignore)


def _ignore(*_: object) -> None:
    """Unlike SIG_IGN, this is not passed on to the servers."""


def _clean(layout: Layout, found: binaries.Binaries) -> None:
    """Delete what an ephemeral session left when all of it was killed."""
    if layout.discard.exists():
        Server(Postgres(layout, found.postgres), None).stop_leftover()
        Server(Valkey(layout, found.valkey, None), None).stop_leftover()
        layout.discard_leftovers()


def _prepare_directories(layout: Layout, found: binaries.Binaries) -> Account | None:
    """Make the servers' directories, and open ours to the account that they run as."""
    account = choose_account(layout.postgres)
    for directory in (layout.postgres, layout.valkey):
        directory.mkdir(mode=0o700, exist_ok=True)
        if account:
            os.chown(directory, account.uid, account.gid)
    if account is None:
        return None
    _open_to_group(layout.root, account)
    programs = list(found)
    reached = [layout.root, *(program.parent for program in programs)]
    return with_capability(account, reached, programs)


def _open_to_group(directory: Path, account: Account) -> None:
    """Let the account pass, not list, our own directory if nobody but root has any right to it."""
    details = directory.stat()
    if details.st_uid == 0 and details.st_mode & 0o077 == 0:
        os.chown(directory, 0, account.gid)
        directory.chmod(0o710)


if __name__ == "__main__":
    main()
