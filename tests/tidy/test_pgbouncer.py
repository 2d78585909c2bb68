"""The settings for PgBouncer tell every session what PicoPay would have told it."""

import configparser
import re
from pathlib import Path

from picopay.infra import sessions

SETTINGS = Path(__file__).parents[2] / "deploy/pgbouncer/pgbouncer.ini"
# PgBouncer keeps these for each client, whichever connection it is given.
KEPT = {"application_name", "timezone"}


def read() -> configparser.SectionProxy:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read(SETTINGS)
    return parsed["pgbouncer"]


def told() -> dict[str, str]:
    query = SETTINGS.read_text()
    assert f"connect_query='SET ROLE {sessions.APP_ROLE};" in query
    return dict(re.findall(r"SET (\w+) = ''(\w+)''", query))


def test_all_that_sessions_are_told_is_told_by_the_connect_query() -> None:
    wanted = {name: limit for name, limit in sessions.REQUESTS.settings.items() if name not in KEPT}
    # The strictest of all pools: whoever may wait longer for a lock says so in its transaction.
    wanted["lock_timeout"] = sessions.RESERVED.settings["lock_timeout"]
    wanted["transaction_timeout"] = "30s"
    assert told() == wanted


def test_what_a_connection_asks_for_at_its_start_is_not_refused() -> None:
    ignored = set(read()["ignore_startup_parameters"].split(","))
    told = sessions.RESERVED.settings.keys() | sessions.BACKGROUND.settings.keys()
    assert ignored == told - KEPT


def test_prepared_statements_are_kept() -> None:
    assert read()["pool_mode"] == "transaction"
    assert int(read()["max_prepared_statements"]) > 0
