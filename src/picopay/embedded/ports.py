"""Loopback ports, chosen once and remembered."""

import secrets
import socket
from pathlib import Path

from picopay.embedded.layout import write_private

# Below the range that kernels lend to outgoing connections: a client that reconnects while its
# server is down can then neither be given the server's port, nor be connected with itself.
_FIRST, _LAST = 20_000, 31_999


def choose(remembered: Path) -> int:
    """Choose the port of last time unless someone else has it now."""
    port = _recall(remembered)
    if port and _is_free(port):
        return port
    while not _is_free(port := _FIRST + secrets.randbelow(_LAST - _FIRST + 1)):
        pass
    write_private(remembered, str(port))
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _recall(remembered: Path) -> int:
    try:
        return int(remembered.read_text())
    except (FileNotFoundError, ValueError):
        return 0
