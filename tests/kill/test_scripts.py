"""The scripts that prove exactly-once to whoever looks, run on a real server as he would."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.forks import run_script
from tests.processes import API_KEY, Ran, Server, Site, clean_environment, free_port, told
from tests.races.load import Wish, caller

# Nobody is killed here: all use one server, by turns.
pytestmark = [pytest.mark.kill, pytest.mark.xdist_group("scripts")]

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def served(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Server]]:
    site = Site.copied(made, tmp_path_factory.mktemp("scripts"))
    yield site, site.serve()
    site.close()


def script(name: str, *arguments: object) -> Ran:
    words = [str(argument) for argument in arguments]
    return run_script(SCRIPTS / name, words, clean_environment(), cwd=SCRIPTS.parent)


def set_up_the_user(site: Site) -> None:
    funded = script("setup_test_user.py", "--data-dir", site.data_dir)
    assert (funded.returncode, funded.stdout) == (0, "user 1: balance 1000.00 USD\n")


def test_ten_concurrent_charges_with_one_key_are_shown_to_count_once(
    served: tuple[Site, Server],
) -> None:
    site, server = served
    assert_shown_to_count_once(site, server)


@pytest.mark.nightly
def test_they_are_shown_to_count_once_by_two_processes(site: Site) -> None:
    assert_shown_to_count_once(site, site.serve(workers=2))


def assert_shown_to_count_once(site: Site, server: Server) -> None:
    set_up_the_user(site)
    for before, after in ((1000, 900), (900, 800)):
        ran = script("test_idempotency.py", "--url", server.url, "--key", API_KEY)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        report = dict(line.rsplit(maxsplit=1) for line in ran.stdout.splitlines()[:-1])
        assert {name: report[name] for name in ("answered 200", "successful records")} == {
            "answered 200": "10/10",
            "successful records": "1",
        }
        balances = [float(report[f"{name} balance"]) for name in ("initial", "final", "expected")]
        assert balances == [before, after, after]
        assert ran.stdout.endswith("PASSED\n")


async def test_a_user_without_enough_money_is_told_to_be_set_up(
    served: tuple[Site, Server],
) -> None:
    site, server = served
    await asyncio.to_thread(set_up_the_user, site)
    async with caller(server.url) as by:
        assert (await by.charge(Wish.of(1, 950))).status == 200
    ran = await asyncio.to_thread(
        script, "test_idempotency.py", "--url", server.url, "--key", API_KEY
    )
    assert told(ran) == "user 1 has 50.0 USD: run scripts/setup_test_user.py"


def test_a_wrong_api_key_is_told(served: tuple[Site, Server]) -> None:
    _, server = served
    ran = script("test_idempotency.py", "--url", server.url, "--key", "wrong")
    assert "API key" in told(ran)


def test_a_server_that_is_not_there_is_told() -> None:
    ran = script(
        "test_idempotency.py", "--url", f"http://127.0.0.1:{free_port()}", "--key", API_KEY
    )
    assert "picopay serve" in told(ran)
