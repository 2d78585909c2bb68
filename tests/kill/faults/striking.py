"""A fault that waits to be armed, and strikes once."""

import os
import signal
from collections.abc import Collection
from pathlib import Path


def sigkill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


class Fault:
    def __init__(self, victim: str, call: int, armed: Path, only: str | None = None) -> None:
        self.victim = victim
        self._calls_left = call
        self._armed = armed
        self._only = only

    def is_due(self) -> bool:
        if self._calls_left > 0 and self._armed.exists():
            self._calls_left -= 1
            if self._calls_left == 0:
                self._tell("struck")
                return True
        return False

    def concerns(self, ids: Collection[str]) -> bool:
        return self._only is None or self._only in ids

    def reached(self) -> None:
        """Tell that somebody waits at the point, for what the test does next."""
        self._tell("reached")

    def _tell(self, what: str) -> None:
        self._armed.with_suffix(f".{what}").touch()

    def strike(self) -> None:
        if self.victim == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
            return
        sigkill(self.victim_pid())

    def victim_pid(self) -> int:
        if self.victim == "self":
            return os.getpid()
        data_dir = Path(os.environ["PICOPAY_DATA_DIR"])
        if self.victim == "postgres":
            return int((data_dir / "postgres/pgdata/postmaster.pid").read_text().split()[0])
        assert self.victim == "valkey", self.victim
        return int((data_dir / "valkey/valkey.pid").read_text())
