"""Valkey: says how to run and recognise its server, which keeps nothing on disk."""

import contextlib
import signal
import socket
from pathlib import Path

from picopay.embedded.layout import Layout, write_private
from picopay.embedded.postgres import ensure_password
from picopay.embedded.privileges import Account
from picopay.embedded.processes import command_of, read_pid

_ANSWER_SECONDS_MAX = 1.0

# The title of the process stays its command line: a leftover is recognised by its file.
_CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
protected-mode yes
save ""
appendonly no
maxmemory 256mb
maxmemory-policy allkeys-lru
dir {directory}
pidfile {pid_file}
daemonize no
set-proc-title no
logfile ""
"""


class Valkey:
    name = "Valkey"
    stop_signals = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
    passing_troubles = ()

    def __init__(self, layout: Layout, binary: Path, account: Account | None) -> None:
        self.log = layout.valkey_log
        self.port_file = layout.valkey_port
        self._password_file = layout.valkey_password
        self._binary = binary
        self._account = account
        self._directory = layout.valkey
        self._config = layout.valkey / "valkey.conf"
        self._pid_file = layout.valkey / "valkey.pid"

    def password(self) -> str:
        return ensure_password(self._password_file, self._account)

    def command(self, port: int) -> list[str | Path]:
        """Keep the password in a file, because everybody may read the list of processes."""
        text = _CONFIG.format(
            port=port,
            password=self.password(),
            directory=_quote(self._directory),
            pid_file=_quote(self._pid_file),
        )
        owner = (self._account.uid, self._account.gid) if self._account else (-1, -1)
        write_private(self._config, text, *owner)
        return [self._binary, self._config]

    def answers(self, pid: int, port: int) -> bool:  # noqa: ARG002  (the password proves it is ours)
        address = ("127.0.0.1", port)
        with (
            contextlib.suppress(OSError),
            socket.create_connection(address, _ANSWER_SECONDS_MAX) as connection,
            connection.makefile("rwb") as stream,
        ):
            stream.write(f"AUTH {self.password()}\r\nPING\r\n".encode())
            stream.flush()
            return stream.readline() + stream.readline() == b"+OK\r\n+PONG\r\n"
        return False

    def find_leftover(self) -> int | None:
        """Find a live server of ours; any other shares nothing with us, not even the port."""
        pid = read_pid(self._pid_file)
        if pid and any(str(self._config) in word for word in command_of(pid)):
            return pid
        return None


def _quote(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
