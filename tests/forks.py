"""Runs `picopay` commands, and scripts, in forks of one process that has imported them all.

Importing takes seconds each time, of which nothing is to be learnt. What runs is the entry point,
in a process, an environment and a folder of its own. This file is also that process's program.
"""

import ctypes
import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn, Protocol
from uuid import uuid4

_PR_SET_PDEATHSIG = 1
_ASKING = Lock()  # tests ask from threads, too
_NUMBERS = count(1)


class Process(Protocol):
    """What tests use of a `subprocess.Popen`."""

    pid: int
    returncode: Any

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Fork:
    """A process that was forked for us by another; how it ended is told in a file."""

    def __init__(self, pid: int, told: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._told = told
        self._descriptor: int | None = None
        with suppress(ProcessLookupError):  # it has ended already
            self._descriptor = os.pidfd_open(pid)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def poll(self) -> int | None:
        while self.returncode is None and self._has_ended():
            if self._told.exists():
                self.returncode = int(self._told.read_text())
            else:
                time.sleep(0.001)  # its watcher is about to tell
        return self.returncode

    def _has_ended(self, timeout: float | None = 0) -> bool:
        if self._descriptor is None:
            return True
        return bool(select.select([self._descriptor], [], [], timeout)[0])

    def wait(self, timeout: float | None = None) -> int:
        if not self._has_ended(timeout):
            raise subprocess.TimeoutExpired("picopay", timeout or 0)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, sig: int) -> None:
        if self._descriptor is None:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def spawn_command(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """`picopay` with these arguments in the background, in the log's folder; it ends with us."""
    log.touch()
    told = log.parent / f".{uuid4().hex}.status"
    answer = _ask("spawn", arguments, environment, cwd=log.parent, log=str(log), told=str(told))
    return Fork(answer["pid"], told)


def run_command(
    arguments: Sequence[str], environment: Mapping[str, str], *, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """As `picopay` with these arguments."""
    return subprocess.CompletedProcess(**_ask("run", arguments, environment, cwd=cwd))


def run_script(
    script: Path, arguments: Sequence[str], environment: Mapping[str, str], *, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """As the interpreter with this script, which finds all of `picopay` imported."""
    answer = _ask("run", arguments, environment, cwd=cwd, script=str(script))
    return subprocess.CompletedProcess(**answer)


def _ask(
    what: str, arguments: Sequence[str], environment: Mapping[str, str], *, cwd: Path, **more: str
) -> dict[str, Any]:
    number = next(_NUMBERS)
    wanted = {
        "number": number,
        "what": what,
        "arguments": list(arguments),
        "environment": dict(environment),
        "cwd": str(cwd),
        **more,
    }
    with _ASKING:
        parent = _parent()
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(json.dumps(wanted) + "\n")
        parent.stdin.flush()
        while (answer := json.loads(parent.stdout.readline()))["number"] != number:
            pass  # of a test that was broken off
    return answer["answer"]


@cache
def _parent() -> subprocess.Popen[str]:
    """Ends when we do: then its input ends."""
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _serve() -> None:
    main = import_module("picopay.cli.main")
    for name in main.COMMANDS:
        import_module(f"picopay.cli.{name.replace('-', '_')}")
    for served in ("cli.application", "app", "infra.protocol", "infra.accepting"):
        import_module(f"picopay.{served}")
    _settle()
    for line in sys.stdin:
        wanted = json.loads(line)
        answer = (_spawned if wanted["what"] == "spawn" else _ran)(main.main, wanted)
        sys.stdout.write(json.dumps({"number": wanted["number"], "answer": answer}) + "\n")
        sys.stdout.flush()


def _settle() -> None:
    """What each fork would otherwise do again, with the same result for all of them.

    A server collects its garbage when it starts: in a fork that would visit all that was imported,
    and with it copy nearly every page.
    """
    import_module("sqlalchemy.orm").configure_mappers()
    gc.collect()
    gc.freeze()


def _ran(main: Any, wanted: Any) -> dict[str, Any]:  # noqa: ANN401
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            _become(main, wanted, out.fileno(), err.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return {
            "args": wanted["arguments"],
            "returncode": status,
            "stdout": out.read().decode(),
            "stderr": err.read().decode(),
        }


def _spawned(main: Any, wanted: Any) -> dict[str, Any]:  # noqa: ANN401
    """Between us and it stands a process that waits for its end: we have other things to do."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        _watch(main, wanted, write)
    os.close(write)
    with os.fdopen(read) as pid:
        return {"pid": int(pid.read())}


def _watch(main: Any, wanted: Any, write: int) -> NoReturn:  # noqa: ANN401
    _end_with_parent()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.setsid()
        _end_with_parent()
        log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        _become(main, wanted, log, log)
    os.write(write, str(pid).encode())
    os.close(write)
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(pid, number))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    told = Path(wanted["told"])
    with suppress(FileNotFoundError):  # the folder is gone: nobody asks any more
        told.with_suffix(".part").write_text(str(status))
        told.with_suffix(".part").rename(told)
    os._exit(0)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _become(main: Any, wanted: Any, out: int, err: int) -> NoReturn:  # noqa: ANN401
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["cwd"])
    tempfile.tempdir = None  # to be found anew
    sys.argv = sys.orig_argv = [wanted.get("script", "picopay"), *wanted["arguments"]]
    status = 1
    try:
        if "FAULT" in os.environ:
            _customize(os.environ["PYTHONPATH"])
        if "script" in wanted:
            _run_script(Path(wanted["script"]))
        else:
            main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
    except BaseException:  # noqa: BLE001 - as the interpreter would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run_script(script: Path) -> None:
    """As the interpreter does: what is beside a script can be imported."""
    sys.path[0] = str(script.parent)
    sys.argv[0] = str(script)
    runpy.run_path(str(script), run_name="__main__")


def _customize(python_path: str) -> None:
    """As the interpreter does when it starts."""
    sys.path.insert(0, python_path)
    runpy.run_path(str(Path(python_path) / "sitecustomize.py"))


if __name__ == "__main__":
    _serve()
