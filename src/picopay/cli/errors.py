"""How a command fails: one sentence on standard error."""

from typing import Final

from rich.console import Console

err: Final = Console(stderr=True, highlight=False)


class CommandFailed(Exception):
    """Ends the command with this one sentence and exit code 1."""
