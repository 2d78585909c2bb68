"""`picopay keys`: create, list, revoke and roll API keys."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

import typer

from picopay.access import service
from picopay.access.model import DEFAULT_MERCHANT, ApiKey, KeyState, KeyWanted, Scope
from picopay.cli.context import AsJson, DataDir, load_settings, show_json, with_db
from picopay.cli.errors import CommandFailed

app = typer.Typer(help="API keys. A key is shown once.", no_args_is_help=True)

_MERCHANT: Final = re.compile("[a-z0-9_-]{1,64}")
_NAME_CHARS_MAX: Final = 100
_USUAL: Final = frozenset(Scope) - {Scope.ADMIN}

KeyId = Annotated[UUID, typer.Argument(help="The key's id, from `picopay keys list`.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    merchant: Annotated[str, typer.Option(help="Owner of the key.")] = DEFAULT_MERCHANT,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="Repeatable; default: all but `admin`. With `users` a key may deposit to any user."
        ),
    ] = None,
    expires_in: Annotated[
        int | None, typer.Option(metavar="DAYS", min=1, max=36_500, help="Default: never.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and show it, this once.

    Example: `picopay keys create checkout --scope charges --expires-in 365`
    """
    if not name.strip() or not name.isprintable() or len(name) > _NAME_CHARS_MAX:
        raise CommandFailed(f"a name is 1 to {_NAME_CHARS_MAX} printable characters, not all blank")
    if not _MERCHANT.fullmatch(merchant):
        raise CommandFailed("a merchant is 1 to 64 of a-z, 0-9, hyphen and underscore")
    expires = None if expires_in is None else timedelta(days=expires_in)
    live = load_settings().production
    wanted = KeyWanted(name, merchant, frozenset(scope or _USUAL), live, expires)
    _print_new(
        *with_db(data_dir, lambda db: service.create(db, wanted), create=True), as_json=as_json
    )


@app.command(name="list")
def list_(
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """All keys, with when each was last used (to the minute).

    Example: `picopay keys list`
    """
    keys = with_db(data_dir, service.list_all)
    if as_json:
        show_json([_shown(key) for key in keys])
        return
    if not keys:
        print("no keys yet, but for APP_API_KEY: make one with `picopay keys create`")
    for key in keys:
        _print(key)


def _print(key: ApiKey) -> None:
    """Lines of its own for each key: a table of ids this long fits no terminal."""
    used = f"last used {_minute(key.last_used_at)}" if key.last_used_at else "never used"
    print(f"{key.id}  {_state(key)}")
    print(f"  {key.name}, merchant {key.merchant_id}, scopes {_scopes(key)}")
    print(f"  begins {key.prefix}…, created {key.created_at:%Y-%m-%d}, {used}")


@app.command()
def revoke(key_id: KeyId, data_dir: DataDir = None) -> None:
    """Revoke a key: it stops working everywhere within 5 seconds.

    Example: `picopay keys revoke 0198c6a2-7c1e-7000-8000-000000000000`
    """
    key = with_db(data_dir, lambda db: service.revoke(db, key_id))
    print(f"revoked {key.name} ({key.id})")


@app.command()
def roll(
    key_id: KeyId,
    overlap: Annotated[
        int, typer.Option(metavar="HOURS", min=0, max=876_000, help="Both work.")
    ] = 24,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Replace a key: the successor works at once, the old one for `--overlap` hours more.

    The successor has the same merchant, scopes and lifetime, counted from now.

    Example: `picopay keys roll 0198c6a2-7c1e-7000-8000-000000000000 --overlap 48`
    """
    live, hours = load_settings().production, timedelta(hours=overlap)
    made = with_db(data_dir, lambda db: service.roll(db, key_id, hours, live=live))
    _print_new(*made, as_json=as_json)


def _print_new(key: ApiKey, text: str, *, as_json: bool) -> None:
    if as_json:
        show_json({**_shown(key), "key": text})
        return
    print(f"{text}\n\nid {key.id}, merchant {key.merchant_id}, scopes {_scopes(key)}.")
    print("Keep it now: it is not stored, and cannot be shown again.")


def _shown(key: ApiKey) -> dict[str, object]:
    return {**key._asdict(), "scopes": sorted(key.scopes)}


def _scopes(key: ApiKey) -> str:
    return ", ".join(sorted(key.scopes))


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked at {_minute(key.revoked_at)}"
    if key.expires_at is not None:
        word = "expired" if key.state is KeyState.EXPIRED else "expires"
        return f"{word} at {_minute(key.expires_at)}"
    return "active"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
