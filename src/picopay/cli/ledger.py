"""`picopay ledger`."""
import typer
app = typer.Typer(help="The ledger.", no_args_is_help=True)
@app.command()
def check() -> None:
    """tbd"""
