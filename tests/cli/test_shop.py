"""A shop from nothing: the secret that is made for its administrators, and its first products."""

import http.client
import json
import os
import stat
from pathlib import Path

import asyncpg
import pytest
from tests.conftest import Stores
from tests.forks import run_command, run_script
from tests.processes import Ran, Site, clean_environment, told

ROOT = Path(__file__).parents[2]


def add_product(port: int, secret: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        body = json.dumps({"name": "Laptop", "price": 1500})
        connection.request("POST", "/admin/products", body, {"X-Admin-Secret": secret})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.kill
def test_a_missing_secret_is_made_kept_and_shown(site: Site) -> None:
    unset = {"ADMIN_SECRET": "", "APP_API_KEY": ""}
    server = site.serve(environment=unset)
    path = site.data_dir / "admin_secret"
    secret = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(secret) > 30
    assert secret != (site.data_dir / "api_key").read_text().strip()
    assert secret in server.log.read_text()
    assert add_product(server.port, secret) == 201
    assert add_product(server.port, "") == 401
    server.stop()
    server.start()
    assert path.read_text().strip() == secret
    assert add_product(server.port, secret) == 201


@pytest.fixture
def environment(clean: Stores) -> dict[str, str]:
    return os.environ | {"DATABASE_URL": clean.database_url}


def seed(environment: dict[str, str], *arguments: str) -> Ran:
    return run_script(ROOT / "scripts/seed_data.py", arguments, environment, cwd=ROOT)


def test_who_fills_a_shop_is_told_where_it_is(
    environment: dict[str, str], site: Site, tmp_path: Path
) -> None:
    assert seed(environment).stderr.startswith("filling the database gw")
    bare, there = clean_environment(), ("--data-dir", str(site.data_dir))
    alone = seed(bare, *there)
    assert f"in {site.data_dir}, where no server is running: if the shop is" in alone.stderr
    assert alone.stdout == "5 products are new, 0 were there already\n"
    site.serve()
    beside = seed(bare, *there)
    assert beside.stderr == f"filling the database in {site.data_dir}\n"
    assert beside.stdout == "0 products are new, 5 were there already\n"


def test_a_demo_without_a_key_says_where_one_may_be(tmp_path: Path) -> None:
    bare = clean_environment() | {"APP_API_KEY": ""}
    ran = run_command(["demo"], bare, cwd=tmp_path)
    assert "set APP_API_KEY, or give the server's --data-dir" in told(ran)


async def test_the_shop_is_filled_with_five_products_once(
    environment: dict[str, str], owner: asyncpg.Connection
) -> None:
    assert seed(environment).stdout == "5 products are new, 0 were there already\n"
    assert seed(environment).stdout == "0 products are new, 5 were there already\n"
    rows = await owner.fetch("SELECT name, price, currency, stock FROM products ORDER BY price")
    assert [tuple(row) for row in rows] == [
        ("Mouse", 2500, "USD", 50),
        ("Keyboard", 7500, "USD", 30),
        ("Headphones", 10_000, "USD", 25),
        ("Monitor", 30_000, "USD", 15),
        ("Laptop", 150_000, "USD", 10),
    ]
    checked = run_command(["ledger", "check"], environment, cwd=ROOT)
    assert "The ledger is clean." in checked.stdout


async def test_a_seed_draws_the_same_products_again_and_more_of_them(
    environment: dict[str, str], owner: asyncpg.Connection
) -> None:
    query = "SELECT id, name, price, stock, is_active FROM products ORDER BY id"
    asked = ("--products", "300", "--seed", "7")
    assert seed(environment, *asked).stdout == "300 products are new, 0 were there already\n"
    first = await owner.fetch(query)
    await owner.execute("TRUNCATE products, stock_moves")
    seed(environment, *asked)
    assert await owner.fetch(query) == first
    told = seed(environment, "--products", "300", "--seed", "8").stdout
    assert told == "300 products are new, 0 were there already\n"
    checked = run_command(["ledger", "check"], environment, cwd=ROOT)
    assert "The ledger is clean." in checked.stdout
