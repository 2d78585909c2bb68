"""One supervised server: started on a free port, tended while it is wanted, stopped."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from picopay.embedded import ports
from picopay.embedded.errors import EmbeddedError
from picopay.embedded.layout import last_lines, read_log
from picopay.embedded.privileges import Account
from picopay.embedded.processes import Pause, Signals, command_of, end, spawn

START_SECONDS_MAX = 110.0
_HEALTHY_SECONDS = 10.0
_RESTARTS_MAX = 5
_BACKOFF_SECONDS = 0.1
_RETRY_SECONDS = 0.1


class Program(Protocol):
    """What differs between PostgreSQL and Valkey."""

    log: Path
    port_file: Path

    @property
    def name(self) -> str: ...
    @property
    def stop_signals(self) -> Signals: ...
    @property
    def passing_troubles(self) -> Sequence[str]: ...  # words in its log; they end by themselves

    def command(self, port: int) -> list[str | Path]: ...
    def answers(self, pid: int, port: int) -> bool: ...
    def find_leftover(self) -> int | None: ...


class Server:
    def __init__(self, program: Program, account: Account | None) -> None:
        self.port = 0
        self._program = program
        self._account = account
        self._process: subprocess.Popen[str] | None = None
        self._started = 0.0
        self._failures = 0

    def start(self, pause: Pause) -> None:
        """Start it on its port, at the first time on the one remembered or another."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            self.stop_leftover()
            port = self.port or ports.choose(self._program.port_file)
            log_start = self._program.log.stat().st_size if self._program.log.exists() else 0
            if self._try_start(port, pause, deadline):
                self.port = port
                return
            if not self._is_passing(read_log(self._program.log, log_start), deadline):
                raise EmbeddedError(
                    f"{self._program.name} did not start, see {self._program.log}:"
                    f"{last_lines(self._program.log, log_start)}"
                )
            self._rest(_RETRY_SECONDS, pause)

    def tend(self, pause: Pause) -> None:
        """Restart it on the same port if it died, unless it keeps dying."""
        if self._process is None or self._process.poll() is None:
            return
        log(f"{self._program.name} died with status {self._process.returncode}: restarting")
        if time.monotonic() - self._started > _HEALTHY_SECONDS:
            self._failures = 0
        while self._failures < _RESTARTS_MAX:
            self._rest(_BACKOFF_SECONDS * 2**self._failures, pause)
            self._failures += 1
            try:
                self.start(pause)
            except EmbeddedError as error:
                log(str(error))
            else:
                return
        raise EmbeddedError(
            f"{self._program.name} died again and again, see {self._program.log}:"
            f"{last_lines(self._program.log)}"
        )

    def ask_to_stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(self._program.stop_signals[0][0])

    def stop(self) -> None:
        process = self._process
        if process is not None:
            end(process.send_signal, lambda: process.poll() is not None, self._program.stop_signals)

    def stop_leftover(self) -> None:
        """End a server that outlived its keeper; its data directory can have one only."""
        pid = self._program.find_leftover()
        if pid is None:
            return
        log(f"stopping {self._program.name}, process {pid}, left by an earlier keeper")
        command = command_of(pid)

        def send(number: signal.Signals) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

        end(send, lambda: command_of(pid) != command, self._program.stop_signals)

    def _try_start(self, port: int, pause: Pause, deadline: float) -> bool:
        program, stop_signal = self._program, self._program.stop_signals[0][0]
        process = spawn(program.command(port), program.log, self._account, stop_signal)
        self._process, self._started = process, time.monotonic()
        while process.poll() is None:
            if program.answers(process.pid, port):
                return True
            if time.monotonic() > deadline:
                self.stop()
                raise EmbeddedError(
                    f"{program.name} did not answer in {START_SECONDS_MAX:.0f} s, "
                    f"see {program.log}:{last_lines(program.log)}"
                )
            pause()
        return False

    def _is_passing(self, said: str, deadline: float) -> bool:
        """At a restart the port is promised to users, and is waited for in `tend`."""
        troubles = list(self._program.passing_troubles)
        troubles += [] if self.port else [os.strerror(errno.EADDRINUSE)]
        return time.monotonic() < deadline and any(trouble in said for trouble in troubles)

    def _rest(self, seconds: float, pause: Pause) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pause()


def log(message: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")
    sys.stderr.flush()
