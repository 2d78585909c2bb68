"""Starts, recognises and ends the processes of servers."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from picopay.embedded.errors import EmbeddedError
from picopay.embedded.layout import last_lines, open_log
from picopay.embedded.privileges import Account, prepare_child

# Sleeps a moment, and raises when nobody wants the servers any more.
Pause = Callable[[], None]
# What to send, and how many seconds to wait before sending the next.
Signals = Sequence[tuple[signal.Signals, float]]

# Not ours: PGPORT and the like would change servers, and secrets do not belong there.
_ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}


def spawn(
    command: Sequence[str | Path],
    log: Path,
    account: Account | None,
    death_signal: signal.Signals,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[str]:
    """Start it in a session of its own, to be signalled by the kernel when we die."""
    output = open_log(log)
    try:
        return subprocess.Popen(  # noqa: S603  (programs that we found)
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            text=True,
            cwd="/",
            env=_ENVIRONMENT,
            start_new_session=True,
            preexec_fn=partial(prepare_child, account, death_signal, os.getpid()),  # noqa: PLW1509  (the keeper has one thread)
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"could not run {command[0]}: {error}") from error
    finally:
        os.close(output)


def run(
    command: Sequence[str | Path],
    log: Path,
    account: Account | None,
    pause: Pause,
    stdin: str = "",
) -> None:
    """Run a program to its end, and kill it with all its children if we are interrupted."""
    start = log.stat().st_size if log.exists() else 0
    process = spawn(command, log, account, signal.SIGKILL, subprocess.PIPE)
    try:
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(stdin)
        while process.poll() is None:
            pause()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        program = Path(command[0]).name
        raise EmbeddedError(f"{program} failed, see {log}:{last_lines(log, start)}")


def command_of(pid: int) -> list[str]:
    """Give the words of its command line: one empty word for a zombie, none for nobody."""
    if Path("/proc/self/cmdline").exists():
        try:
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
        except (FileNotFoundError, ProcessLookupError):
            return []
    asked = ["ps", "-o", "command=", "-p", str(pid)]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603  (ps)
    return answer.stdout.split(maxsplit=1)


def read_pid(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def end(send: Callable[[signal.Signals], None], is_gone: Callable[[], bool], how: Signals) -> None:
    """Ask more and more firmly."""
    for number, seconds in how:
        if is_gone():
            return
        send(number)
        deadline = time.monotonic() + seconds
        while not is_gone() and time.monotonic() < deadline:
            time.sleep(0.005)
