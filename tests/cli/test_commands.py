"""The `picopay` command, run as a person would."""

import json
import os
import re
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2
import pytest
from tests.conftest import Stores
from tests.forks import run_command, run_script
from tests.processes import API_KEY, Ran, run, told
from typer.testing import CliRunner

from picopay import __version__
from picopay.cli.main import COMMANDS, app

ROOT = Path(__file__).parents[2]
SIGNED = {"APP_API_KEY": API_KEY, "TRANSACTION_WEBHOOK_SECRET": "one-secret-of-our-own"}
PRODUCTION = SIGNED | {"ADMIN_SECRET": "another-secret-of-our-own"}
MAIN = "from picopay.cli.main import main; main()"
PICOPAY = ROOT / ".venv" / "bin" / "picopay"


@pytest.fixture
def environment(clean: Stores) -> dict[str, str]:
    return {"DATABASE_URL": clean.database_url, "REDIS_URL": clean.redis_url}


def picopay(environment: dict[str, str], *arguments: str) -> Ran:
    return run_command(arguments, os.environ | environment, cwd=ROOT)


def _run(command: list[str], environment: dict[str, str]) -> Ran:
    return run(command, os.environ | environment, cwd=ROOT)


def test_users_are_created_funded_and_shown(environment: dict[str, str]) -> None:
    made = picopay(environment, "users", "create", "7", "--deposit", "100.00", "USD")
    assert made.stdout == "user 7: 100.00 USD\n"
    more = picopay(environment, "users", "deposit", "7", "1.5", "KWD")
    assert more.stdout == "user 7: 1.500 KWD, 100.00 USD\n"


async def test_json_is_what_the_api_answers(
    environment: dict[str, str], client: httpx2.AsyncClient
) -> None:
    picopay(environment, "users", "create", "7", "--deposit", "100.00", "USD")
    key = ("--key", "monday")
    paid = picopay(environment, "users", "deposit", "7", "1.5", "KWD", *key, "--json").stdout
    body = {"amount": 1.5, "currency": "KWD"}
    again = await client.post(
        "/v1/users/7/deposits", json=body, headers={"Idempotency-Key": key[1]}
    )
    assert again.headers["idempotent-replayed"] == "true"
    assert paid == again.text + "\n"

    of_api = (await client.get("/v1/users/7")).text + "\n"
    assert '{"currency":"KWD","balance":1.500}' in of_api
    assert picopay(environment, "users", "show", "7", "--json").stdout == of_api
    assert picopay(environment, "users", "create", "7", "--json").stdout == of_api


def test_a_deposit_with_a_key_counts_once(environment: dict[str, str]) -> None:
    picopay(environment, "users", "create", "7")
    for _ in range(2):
        ran = picopay(environment, "users", "deposit", "7", "5", "USD", "--key", "monday")
        assert ran.stdout == "user 7: 5.00 USD\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["users", "show", "99"], "picopay: there is no user 99"),
        (["users", "deposit", "99", "1", "USD"], "picopay: there is no user 99"),
        (["users", "create", "7", "--deposit", "1.001", "USD"], "more than the 2 decimals of USD"),
        (["users", "create", "7", "--deposit", "ten", "USD"], "'ten' is not an amount"),
        (["users", "create", "7", "--deposit", "1", "usd"], "'usd' is not an ISO 4217"),
        (["keys", "revoke", "0198c6a2-7c1e-7000-8000-000000000000"], "there is no API key"),
        (["keys", "create", "x", "--merchant", "A B"], "a merchant is 1 to 64 of"),
        (["keys", "create", ""], "a name is 1 to 100 printable characters"),
        (["keys", "create", " "], "a name is 1 to 100 printable characters"),
        (["keys", "create", "x" * 101], "a name is 1 to 100 printable characters"),
        (["keys", "create", "a\nb"], "a name is 1 to 100 printable characters"),
        (["keys", "create", "\x1b[31mred"], "a name is 1 to 100 printable characters"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(
    environment: dict[str, str], arguments: list[str], sentence: str
) -> None:
    assert sentence in told(picopay(environment, *arguments))


def test_a_key_is_shown_once_rolled_and_revoked(environment: dict[str, str]) -> None:
    made = json.loads(
        picopay(environment, "keys", "create", "shop", "--scope", "charges", "--json").stdout
    )
    assert made["key"].startswith("pk_live_")  # an external database means production
    listed = picopay(environment, "keys", "list", "--json")
    assert made["key"] not in listed.stdout
    assert [key["name"] for key in json.loads(listed.stdout)] == ["shop"]
    rolled = json.loads(picopay(environment, "keys", "roll", made["id"], "--json").stdout)
    assert rolled["key"] != made["key"]
    assert "revoked shop" in picopay(environment, "keys", "revoke", rolled["id"]).stdout


MINUTE: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2} UTC"


@pytest.fixture
def keys(environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    """A key of every state, as it was made."""

    def made(*arguments: str) -> dict[str, Any]:
        return json.loads(picopay(environment, "keys", *arguments, "--json").stdout)

    keys = {name: made("create", name) for name in ("active", "expired", "revoked", "both")}
    keys["expiring"] = made("create", "expiring", "--expires-in", "1", "--scope", "users")
    keys["successor"] = made("roll", keys["expired"]["id"], "--overlap", "0")
    made("roll", keys["both"]["id"], "--overlap", "0")
    for name in ("revoked", "both"):
        picopay(environment, "keys", "revoke", keys[name]["id"])
    return keys


def test_keys_are_json_as_an_api_would_print_them(
    environment: dict[str, str], keys: dict[str, dict[str, Any]]
) -> None:
    listed = json.loads(picopay(environment, "keys", "list", "--json").stdout)
    shown = {key["id"]: key for key in listed}
    for name, key in keys.items():
        assert list(key) == [*shown[key["id"]], "key"], name
        assert key["created_at"].endswith("Z")
        assert datetime.fromisoformat(key["created_at"]).utcoffset() == timedelta()
    expiring = shown[keys["expiring"]["id"]]
    assert expiring["expires_at"].endswith("Z")
    assert (expiring["revoked_at"], expiring["last_used_at"]) == (None, None)
    assert expiring["scopes"] == ["users"]
    assert keys["active"]["scopes"] == ["charges", "ledger", "orders", "transactions", "users"]
    states = {name: shown[key["id"]]["state"] for name, key in keys.items()}
    assert states == {
        "active": "active",
        "expiring": "active",
        "successor": "active",
        "expired": "expired",
        "revoked": "revoked",
        "both": "revoked",
    }


def test_keys_are_listed_plainly_within_80_columns(
    environment: dict[str, str], keys: dict[str, dict[str, Any]]
) -> None:
    lines = picopay(environment | {"COLUMNS": "80"}, "keys", "list").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    told = {
        "active": "active",
        "expiring": f"expires at {MINUTE}",
        "expired": f"expired at {MINUTE}",
        "revoked": f"revoked at {MINUTE}",
        "both": f"revoked at {MINUTE}",
    }
    for name, state in told.items():
        (line,) = [line for line in lines if line.startswith(keys[name]["id"])]
        assert re.fullmatch(f"{keys[name]['id']}  {state}", line)
        assert f"  {name}, merchant default, scopes " in lines[lines.index(line) + 1]


def test_without_keys_the_list_says_how_to_make_one(environment: dict[str, str]) -> None:
    assert "picopay keys create" in picopay(environment, "keys", "list").stdout
    assert picopay(environment, "keys", "list", "--json").stdout == "[]\n"


def test_every_command_has_help_with_an_example() -> None:
    commands = [["serve"], ["migrate"], ["demo"], ["bench"], ["openapi"], ["ledger", "check"]]
    commands += [["users", name] for name in ("create", "deposit", "show")]
    commands += [["worker"], *(["dead-letters", n] for n in ("list", "show", "replay", "discard"))]
    commands += [["keys", name] for name in ("create", "list", "revoke", "roll")]
    assert {command[0] for command in commands} == set(COMMANDS)
    for command in commands:
        ran = CliRunner().invoke(app, [*command, "--help"])
        assert ran.exit_code == 0, command
        assert "Example" in ran.stdout, command


def test_the_version_is_told_without_importing_any_command() -> None:
    heavy = (
        "{name.partition('.')[0] for name in sys.modules} & {'sqlalchemy', 'fastapi', 'aiohttp'}"
    )
    told = f"import atexit, sys; atexit.register(lambda: print({heavy}))"
    ran = _run([sys.executable, "-c", f"{told}; sys.argv[1:] = ['--version']; {MAIN}"], {})
    assert ran.stdout == f"picopay {__version__}\nset()\n"


def test_a_command_that_is_none_is_told_the_most_alike() -> None:
    ran = CliRunner().invoke(app, ["dead-leters"])
    assert ran.exit_code == 2
    assert "Did you mean 'dead-letters'?" in ran.output


def test_the_openapi_document_is_printed(environment: dict[str, str]) -> None:
    document = json.loads(picopay(environment, "openapi").stdout)
    assert "/charge" in document["paths"]


def test_migrate_check_tells_whether_the_schema_is_current(
    environment: dict[str, str], owner: asyncpg.Connection
) -> None:
    assert picopay(environment, "migrate", "--check").returncode == 0
    base, _, _ = environment["DATABASE_URL"].rpartition("/")
    empty = environment | {"DATABASE_URL": f"{base}/postgres"}
    assert "not current" in told(picopay(empty, "migrate", "--check"))
    assert "run `picopay migrate`" in told(picopay(empty, "users", "show", "1"))
    assert "run `picopay migrate`" in told(picopay(empty, "serve", "--port", "0"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "no API key exists: set APP_API_KEY"),
        ({"APP_API_KEY": "changeme"}, "APP_API_KEY is a well-known placeholder"),
        ({"APP_API_KEY": API_KEY}, "TRANSACTION_WEBHOOK_SECRET is missing"),
        (
            {"APP_API_KEY": API_KEY, "TRANSACTION_WEBHOOK_SECRET": "good-one, change-me"},
            "TRANSACTION_WEBHOOK_SECRET is a well-known placeholder",
        ),
        (PRODUCTION | {"FAKE_PAYMENT_ENABLED": "true"}, "PAYMENT_WEBHOOK_SECRET is missing"),
        (
            PRODUCTION | {"FAKE_PAYMENT_ENABLED": "1", "PAYMENT_WEBHOOK_SECRET": "fine,secret"},
            "PAYMENT_WEBHOOK_SECRET is a well-known placeholder",
        ),
        (SIGNED, "ADMIN_SECRET is missing"),
        (SIGNED | {"ADMIN_SECRET": "dev-admin-secret"}, "ADMIN_SECRET is a well-known placeholder"),
        ({"SHOP_CURRENCY": "usd"}, "SHOP_CURRENCY is not an ISO 4217 currency code"),
        ({"DATABASE_URL": "postgresql://a:b@127.0.0.1:1/c"}, "the database cannot be reached"),
        ({"DATABASE_URL": "postgresql://a:b@127.0.0.1:1/c"}, " (postgresql://a@127.0.0.1:1/c)"),
        ({"DATABASE_URL": "mysql://a:b@127.0.0.1/c"}, "postgresql://user:password@host"),
        (
            {"DATABASE_URL": "postgresql://a:b@127.0.0.1:1/c?connect_timeout=9"},
            "DATABASE_URL: the option connect_timeout is not one of sslmode, sslrootcert",
        ),
        (
            {
                "DATABASE_URL": "postgresql://a:b@127.0.0.1:1/c?sslmode=verify-full&sslrootcert=/no/ca"
            },
            "No such file or directory",
        ),
        (
            {"MIGRATION_DATABASE_URL": "postgresql://a@b/c?sslmode=always"},
            "MIGRATION_DATABASE_URL: sslmode is not one of disable, allow",
        ),
        ({"DB_POOL_SIZE": "many"}, "DB_POOL_SIZE: Input should be a valid integer"),
        ({"DB_POOL_SIZE": "0"}, "DB_POOL_SIZE: Input should be greater than or equal to 2"),
        ({"REDIS_URL": "redis://cache:many/0"}, "REDIS_URL: not a redis://host:port/number URL"),
        ({"TRUSTED_PROXIES": "*"}, "picopay: TRUSTED_PROXIES is not a list of networks"),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL: Input should be 'DEBUG', 'INFO'"),
    ],
)
def test_production_refuses_to_start(
    environment: dict[str, str], change: dict[str, str], sentence: str
) -> None:
    assert sentence in told(picopay(environment | change, "serve", "--port", "0"))


def test_production_tells_of_secrets_that_could_be_guessed(environment: dict[str, str]) -> None:
    short = {"APP_API_KEY": "x" * 15, "TRANSACTION_WEBHOOK_SECRET": f"{'y' * 16},{'y' * 15}"}
    said = picopay(environment | short, "serve", "--port", "0").stderr
    for name in short:
        assert f"{name} is shorter than 16 characters" in said
    assert "ADMIN_SECRET is missing" in said  # which is what it ends for


def test_a_worker_refuses_it_too(environment: dict[str, str]) -> None:
    change = {"FAKE_PAYMENT_ENABLED": "true", "PAYMENT_WEBHOOK_SECRET": ""}
    ran = picopay(environment | change, "worker")
    assert "PAYMENT_WEBHOOK_SECRET is missing" in told(ran)


async def test_production_refuses_a_role_that_could_rewrite_history(
    environment: dict[str, str], owner: asyncpg.Connection
) -> None:
    await owner.execute("GRANT DELETE ON postings TO picopay_app")
    try:
        ran = picopay(environment | PRODUCTION, "serve", "--port", "0")
    finally:
        await owner.execute("REVOKE DELETE ON postings FROM picopay_app")
    assert "may change postings" in told(ran)


def test_python_without_assertions_is_refused(environment: dict[str, str]) -> None:
    ran = _run([sys.executable, "-O", str(PICOPAY), "users", "show", "1"], environment)
    assert ran.returncode == 1
    assert "python -O" in ran.stderr


def test_the_test_user_script_sets_the_balance(environment: dict[str, str]) -> None:
    def set_up() -> str:
        script = ROOT / "scripts/setup_test_user.py"
        return run_script(script, [], os.environ | environment, cwd=ROOT).stdout

    assert set_up() == "user 1: balance 1000.00 USD\n"
    picopay(environment, "users", "deposit", "1", "50", "USD")
    assert set_up() == "user 1: balance 1000.00 USD\n"
    assert picopay(environment, "users", "show", "1").stdout == "user 1: 1000.00 USD\n"
