"""Whether page 10,000 of a list of products costs what page 1 does, and what searches cost.

Pages are asked for over HTTP, one at a time and by turns, so that the machine's moods meet all of
them. Exits 1 when the medians of first and deep page differ by more than a fifth in any order.
"""

import argparse
import http.client
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple, NoReturn
from urllib.parse import urlencode

from contestants import Contestant, Wrong, prepare, running
from servers import Servers, execute, number, run_servers

from picopay.catalog.model import Listing, Product, SortBy
from picopay.catalog.schemas import cursor_after
from picopay.kernel.money import Money

CONTESTANT: Final = Contestant("catalog", "picopay", "catalog", 6)
LIMIT: Final = 20
DEEP_PAGE: Final = 10_000
RATIO_MAX: Final = 1.2
WARM_UP: Final = 50
SEARCHES: Final = ("a", "zz", "lap", "laptop", "ffff", "nothing")
SEED: Final = Path(__file__).parents[1] / "scripts" / "seed_data.py"


class Order(NamedTuple):
    sort_by: SortBy
    descending: bool

    @property
    def name(self) -> str:
        return f"{self.sort_by} {'down' if self.descending else 'up'}"


ORDERS: Final = [Order(sort_by, descending) for sort_by in SortBy for descending in (True, False)]


def fill(servers: Servers, products: int) -> None:
    prepare(servers, CONTESTANT)
    url = servers.database_url(CONTESTANT.database)
    began = time.monotonic()
    subprocess.run(
        [sys.executable, SEED, "--products", str(products)],
        env={"DATABASE_URL": url, "PICOPAY_ENV": "development", "PATH": ""},
        check=True,
    )
    print(f"{products:,} products in {time.monotonic() - began:.0f} s")
    execute(servers, CONTESTANT.database, "VACUUM ANALYZE products")


def deep_cursor(servers: Servers, order: Order, page: int) -> str:
    """Where the page begins, found once and with the OFFSET that the application never uses."""
    direction = "DESC" if order.descending else "ASC"
    connected = servers.connect(CONTESTANT.database)
    try:
        with connected.cursor() as cursor:
            cursor.execute(
                "SELECT id::text, name, price, created_at FROM products"  # noqa: S608 - ours
                " WHERE is_active AND archived_at IS NULL"
                f" ORDER BY {order.sort_by} {direction}, id {direction}"
                f" OFFSET {(page - 1) * LIMIT - 1} LIMIT 1"
            )
            row = cursor.fetchone()
    finally:
        connected.close()
    if row is None:
        raise Wrong(f"there is no page {page}")
    product_id, name, price, created_at = row
    at: datetime = created_at.astimezone(UTC)
    money, shown = Money(price, "USD"), True
    last = Product(product_id, name, money, 0, shown, None, 0, at, at)
    return cursor_after(last, Listing(sort_by=order.sort_by, descending=order.descending))


def timed(connection: http.client.HTTPConnection, query: Mapping[str, str]) -> tuple[float, int]:
    """(milliseconds, products shown)."""
    began = time.perf_counter()
    connection.request("GET", f"/products?{urlencode(query)}")
    answer = connection.getresponse()
    body = answer.read()
    took = (time.perf_counter() - began) * 1000
    if answer.status != 200:
        raise Wrong(f"answered {answer.status}: {body.decode()}")
    return took, len(json.loads(body))


def asked(order: Order) -> dict[str, str]:
    return {
        "sort_by": order.sort_by,
        "sort_desc": str(order.descending).lower(),
        "limit": str(LIMIT),
    }


def compare(servers: Servers, port: int, rounds: int, page: int) -> bool:
    """Whether each order's deep page is as quick as its first."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    queries = {
        order: (asked(order), asked(order) | {"cursor": deep_cursor(servers, order, page)})
        for order in ORDERS
    }
    taken: dict[Order, tuple[list[float], list[float]]] = {order: ([], []) for order in ORDERS}
    for number_of_round in range(WARM_UP + rounds):
        for order, pair in queries.items():
            # Who comes first changes too: it finds the server colder.
            for which in (0, 1) if number_of_round % 2 else (1, 0):
                took, shown = timed(connection, pair[which])
                if shown != LIMIT:
                    raise Wrong(f"{shown} products on a page of {order.name}")
                if number_of_round >= WARM_UP:
                    taken[order][which].append(took)
    print(f"\n{'order':<18} {'page 1':>9} {f'page {page:,}':>12} {'ratio':>7}   (median ms)")
    ratios: list[float] = []
    for order, (first, deep) in taken.items():
        medians = statistics.median(first), statistics.median(deep)
        ratios.append(medians[1] / medians[0])
        print(f"{order.name:<18} {medians[0]:>9.2f} {medians[1]:>12.2f} {ratios[-1]:>7.2f}")
    print(f"\n{'search':<18} {'median':>9} {'slowest':>12}   (ms, over all orders)")
    for q in SEARCHES:
        times = [
            timed(connection, asked(order) | {"q": q})[0]
            for _ in range(max(3, rounds // 20))
            for order in ORDERS
        ]
        print(f"{q:<18} {statistics.median(times):>9.2f} {max(times):>12.2f}")
    return all(1 / RATIO_MAX <= ratio <= RATIO_MAX for ratio in ratios)


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(1)


def main() -> None:
    signal.signal(signal.SIGTERM, _leave)  # so that our servers end with us
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=300, help="of each page in each order")
    parser.add_argument("--page", type=int, default=DEEP_PAGE)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))  # noqa: S108 - as run.py
    given = parser.parse_args()
    with run_servers(given.folder) as servers:
        fill(servers, given.products)
        with running(servers, CONTESTANT) as server:
            alike = compare(servers, server.port, given.rounds, given.page)
        kept = number(servers, CONTESTANT.database, "SELECT count(*) FROM products")
        if kept != given.products:
            raise Wrong(f"{kept} products where {given.products} were made")
    raise SystemExit(0 if alike else 1)


if __name__ == "__main__":
    main()
