"""Two server processes that share one database."""

from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
from tests.processes import Server, Site
from tests.races import load
from tests.races.load import P99_MS_MAX, Caller, Measured, Still, Wish, caller


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


class BestP99(Protocol):
    def __call__(self, measured: Measured, ms_max: float = P99_MS_MAX, /) -> Awaitable[float]: ...


@pytest.fixture
def best_p99(still: Still) -> BestP99:
    return partial(load.best_p99, still)
