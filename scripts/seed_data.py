"""Fill a shop with products: by default five, with `--products` as many as wanted.

The same seed and number make the same products, ids included; what is there already is left alone.
Their stock is recorded move by move, so that `picopay ledger check` stays clean. Uses DATABASE_URL,
or the embedded database of the data directory (`--data-dir`), and says which.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final
from uuid import UUID

from picopay.catalog import service
from picopay.catalog.model import NewProduct
from picopay.cli.context import load_settings, whereabouts, with_db
from picopay.infra.db import Db
from picopay.kernel.money import EXPONENTS, Money

FIVE: Final = (
    ("Laptop", 1500, 10),
    ("Mouse", 25, 50),
    ("Keyboard", 75, 30),
    ("Monitor", 300, 15),
    ("Headphones", 100, 25),
)
KINDS: Final = ("Laptop", "Mouse", "Keyboard", "Monitor", "Headphones", "Camera", "Speaker", "Desk")
MAKERS: Final = ("Acme", "Borealis", "Cobalt", "Dynamo", "Equinox", "Fjord", "Granite", "Horizon")
TRAITS: Final = ("Air", "Basic", "Classic", "Deluxe", "Eco", "Flex", "Go", "Home", "Max", "Pro")
PRODUCTS_A_BATCH: Final = 10_000
_FIRST_MS: Final = 1_700_000_000_000  # the time in the first id


def products(count: int | None, seed: int, currency: str) -> Iterator[NewProduct]:
    """The five, or `count` products drawn by the seed."""
    chance = random.Random(seed)  # noqa: S311 - the same again is the point
    major = 10 ** EXPONENTS[currency]
    if count is None:
        for number, (name, price, stock) in enumerate(FIVE):
            made = Money(price * major, currency)
            yield NewProduct(_id(number, chance), name, made, stock, is_active=True)
        return
    for number in range(count):
        words = (chance.choice(MAKERS), chance.choice(KINDS), chance.choice(TRAITS))
        name = f"{' '.join(words)} {chance.randrange(count):x}"
        price = Money(chance.randrange(1, 2000) * major - 1, currency)
        stock, is_active = chance.randrange(200), chance.random() < 0.95  # noqa: PLR2004 - most are
        yield NewProduct(_id(number, chance), name, price, stock, is_active)


def _id(number: int, chance: random.Random) -> UUID:
    """A UUIDv7 whose time counts the products, so that neighbours in time are so in the index."""
    drawn = chance.getrandbits(74)
    high, low = drawn >> 62, drawn & (2**62 - 1)
    time = _FIRST_MS + number
    return UUID(int=(time << 80) | (7 << 76) | (high << 64) | (2 << 62) | low)


async def fill(db: Db, count: int | None, seed: int, currency: str) -> int:
    """How many products are new."""
    wanted, made, done = products(count, seed, currency), 0, 0
    while batch := list(islice(wanted, PRODUCTS_A_BATCH)):
        made += len(await service.create(db, batch))
        done += len(batch)
        if count is not None and sys.stderr.isatty():
            print(f"\r{done:,} of {count:,} products", end="", file=sys.stderr, flush=True)
    if count is not None and sys.stderr.isatty():
        print(file=sys.stderr)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=None, metavar="N", help="drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, default=None, help="the shop's; default .picopay")
    given = parser.parse_args()
    currency = load_settings().shop_currency
    print(f"filling {whereabouts(given.data_dir)}", file=sys.stderr)
    made = with_db(
        given.data_dir, lambda db: fill(db, given.products, given.seed, currency), create=True
    )
    asked = len(FIVE) if given.products is None else given.products
    print(f"{made} products are new, {asked - made} were there already")
