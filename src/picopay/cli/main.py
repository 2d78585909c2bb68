"""The `picopay` command."""

import sys
from importlib import import_module
from typing import Any, Final

import typer
from rich.markup import escape
from typer.core import TyperGroup

from picopay import __version__
from picopay.cli.errors import CommandFailed, err
from picopay.embedded.errors import EmbeddedError
from picopay.kernel.errors import Refused

# Each is a module of this folder, with a function of its name, or an `app` of several commands.
COMMANDS: Final = (
    *("serve", "worker", "migrate", "users", "keys", "dead-letters", "ledger"),
    *("demo", "bench", "openapi"),
)


class _Commands(TyperGroup):
    """Imports a command when it is asked for: nobody waits for what the others import."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - a private class of Typer's
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - likewise
        # To a name that is none, the most alike is suggested: of all of them.
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.add_command(_command(name), name)
        return super().get_command(ctx, cmd_name)


def _command(name: str) -> Any:  # noqa: ANN401 - likewise
    module = import_module(f"picopay.cli.{name.replace('-', '_')}")
    holder = typer.Typer(rich_markup_mode="markdown")
    if hasattr(module, "app"):
        holder.add_typer(module.app, name=name)
    else:
        holder.command(name)(getattr(module, name))
    return typer.main.get_group(holder).commands[name]


app = typer.Typer(
    cls=_Commands,
    name="picopay",
    help="A payments core that charges exactly once, on a double-entry ledger.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(value: bool) -> None:
    if value:
        print(f"picopay {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None: ...


def main() -> None:
    if not __debug__:
        sys.exit("picopay: python -O removes the assertions that guard money; run without it")
    try:
        app()
    except (CommandFailed, EmbeddedError) as error:
        sys.exit(_told(str(error)))
    except Refused as refused:
        sys.exit(_told(refused.detail))


def _told(sentence: str) -> int:
    err.print(f"[red]picopay:[/red] {escape(sentence)}", soft_wrap=True)
    return 1
