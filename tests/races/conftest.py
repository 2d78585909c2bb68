"""Two server processes that share one database."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.processes import Server, Site
from tests.races.load import Caller, Wish, caller


@pytest.fixture(scope="session")
def shared_site(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site.copied(made, tmp_path_factory.mktemp("two"))
    yield site
    site.close()


@pytest.fixture(scope="session")
def two_servers(shared_site: Site) -> tuple[Server, Server]:
    """Started once a worker; each test has users of its own there."""
    return shared_site.serve(), shared_site.serve()


@dataclass(frozen=True)
class Pair:
    site: Site
    servers: tuple[Server, Server]
    callers: tuple[Caller, Caller]

    @property
    def url(self) -> str:
        return self.site.database_url


@pytest.fixture
async def pair(shared_site: Site, two_servers: tuple[Server, Server]) -> AsyncIterator[Pair]:
    one, other = two_servers
    async with caller(one.url) as first, caller(other.url) as second:
        # Both have connections by then, and the merchant has an account that can be locked.
        for by in (first, second):
            (user,) = await by.new_users(1)
            assert (await by.charge(Wish.of(user))).status == 200
        yield Pair(shared_site, two_servers, (first, second))
