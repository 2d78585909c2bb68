"""Runs `picopay` commands in forks of one process that has imported them all.

Importing takes a second each time, of which nothing is to be learnt. What runs is the entry point,
in a process, an environment and a folder of its own. This file is also that process's program.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn


def run_command(
    arguments: Sequence[str], environment: Mapping[str, str], *, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """As `picopay` with these arguments."""
    parent = _parent()
    assert parent.stdin is not None
    assert parent.stdout is not None
    wanted = {"arguments": list(arguments), "environment": dict(environment), "cwd": str(cwd)}
    parent.stdin.write(json.dumps(wanted) + "\n")
    parent.stdin.flush()
    return subprocess.CompletedProcess(**json.loads(parent.stdout.readline()))


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
    for line in sys.stdin:
        wanted = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if pid == 0:
                _become(main.main, wanted, out.fileno(), err.fileno())
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            out.seek(0)
            err.seek(0)
            ran = {
                "args": wanted["arguments"],
                "returncode": status,
                "stdout": out.read().decode(),
                "stderr": err.read().decode(),
            }
        sys.stdout.write(json.dumps(ran) + "\n")
        sys.stdout.flush()


def _become(main: Any, wanted: Any, out: int, err: int) -> NoReturn:  # noqa: ANN401
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["cwd"])
    sys.argv = ["picopay", *wanted["arguments"]]
    status = 1
    try:
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


if __name__ == "__main__":
    _serve()
