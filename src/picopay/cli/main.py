"""The `picopay` command."""

import sys

import typer
from rich.markup import escape

from picopay import __version__
from picopay.cli import bench, demo, keys, ledger, migrate, openapi, serve, users
from picopay.cli.context import CommandFailed, err
from picopay.embedded.errors import EmbeddedError
from picopay.infra.db import ConnectionLost
from picopay.kernel.errors import Refused

app = typer.Typer(
    name="picopay",
    help="A payments core that charges exactly once, on a double-entry ledger.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(serve.serve)
app.command()(migrate.migrate)
app.add_typer(users.app, name="users")
app.add_typer(keys.app, name="keys")
app.add_typer(ledger.app, name="ledger")
app.command()(demo.demo)
app.command()(bench.bench)
app.command()(openapi.openapi)


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
    except ConnectionLost:
        sys.exit(_told("the connection to the database was lost"))


def _told(sentence: str) -> int:
    err.print(f"[red]picopay:[/red] {escape(sentence)}", soft_wrap=True)
    return 1
