"""`picopay users`: create, deposit, show."""

from typing import Annotated

import typer

from picopay.access.model import DEFAULT_MERCHANT
from picopay.cli.context import AsJson, DataDir, show_json, with_db
from picopay.cli.errors import CommandFailed
from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.infra.routing import USER_ID_MAX, exact_number
from picopay.kernel.money import Money
from picopay.ledger.model import Account
from picopay.ledger.schemas import balances_of
from picopay.users import service
from picopay.users.model import Deposit, DepositCommand, User
from picopay.users.schemas import DepositOut, UserOut

app = typer.Typer(help="Users and their balances.", no_args_is_help=True)

UserId = Annotated[int, typer.Argument(min=1, max=USER_ID_MAX, help="The user's id.")]
KeyOption = Annotated[str | None, typer.Option(help="Idempotency key: repeat without fear.")]


@app.command()
def create(
    user_id: UserId,
    deposit: Annotated[
        tuple[str, str] | None, typer.Option(metavar="AMOUNT CURRENCY", help="A first deposit.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create a user; one that exists is left as it is, and gets no second first deposit.

    Example: `picopay users create 7 --deposit 100.00 USD`
    """
    money = None if deposit is None else parse_money(*deposit)

    async def work(db: Db) -> tuple[User, list[Account]]:
        _, created = await service.create(db, user_id)
        if created and money is not None:
            await service.deposit(db, _command(user_id, money, None))
        return await service.show(db, user_id)

    _show(*with_db(data_dir, work, create=True), as_json=as_json)


@app.command(name="deposit")
def deposit_(
    user_id: UserId,
    amount: Annotated[str, typer.Argument(help="In major units: 19.99")],
    currency: Annotated[str, typer.Argument(help="ISO 4217 code: USD")],
    key: KeyOption = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Deposit money from outside.

    Example: `picopay users deposit 7 19.99 USD`
    """
    money = parse_money(amount, currency)

    async def work(db: Db) -> tuple[Deposit, User, list[Account]]:
        made = await service.deposit(db, _command(user_id, money, key))
        return made, *await service.show(db, user_id)

    made, user, accounts = with_db(data_dir, work, create=True)
    if as_json:
        show_json(DepositOut.of(made))
    else:
        _print(user, accounts)


@app.command()
def show(
    user_id: UserId,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """A user's balances.

    Example: `picopay users show 1`
    """
    _show(*with_db(data_dir, lambda db: service.show(db, user_id)), as_json=as_json)


def parse_money(amount: str, currency: str) -> Money:
    try:
        number = exact_number(amount)
    except ValueError:
        raise CommandFailed(f"{amount!r} is not an amount") from None
    return Money.parse(number, currency)


def _command(user_id: int, money: Money, key: str | None) -> DepositCommand:
    return DepositCommand(new_id(), DEFAULT_MERCHANT, user_id, money, key)


def _show(user: User, accounts: list[Account], *, as_json: bool) -> None:
    if as_json:
        show_json(UserOut.of(user, accounts))
    else:
        _print(user, accounts)


def _print(user: User, accounts: list[Account]) -> None:
    held = [f"{of.balance.text} {of.currency}" for of in balances_of(accounts)]
    print(f"user {user.id}: {', '.join(held) or 'no money yet'}")
