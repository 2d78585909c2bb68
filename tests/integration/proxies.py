"""A network that fails where a test wants it to: a TCP proxy in front of a real server."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from sqlalchemy.engine import make_url

_COMMIT: Final = b"COMMIT\x00"


class Cut(Enum):
    """What becomes of the connection on which the next COMMIT is sent."""

    NEVER = auto()
    BEFORE_COMMIT = auto()  # the server never sees it
    AFTER_COMMIT = auto()  # the server does, the client never hears


@dataclass(frozen=True)
class Hole:
    """The connection on which `at` is sent next falls silent, and neither side is told."""

    at: bytes
    heard: bool  # the server gets it still
    swallows_all: bool = False  # every connection from then on, new ones too


class PostgresProxy:
    """Passes bytes on, until it is told to lose a COMMIT and, with `stay_lost`, all after it.

    Or to open a black hole.
    """

    def __init__(self, database_url: str) -> None:
        self._target = make_url(database_url)
        self.cut = Cut.NEVER
        self.stay_lost = False
        self.commits_lost = 0
        self.hole: Hole | None = None
        self.swallowed = 0
        self.port = 0
        self._lost = False
        self._silent = False
        self._held: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        here = self._target.set(host="127.0.0.1", port=self.port)
        return here.render_as_string(hide_password=False)

    def come_back(self) -> None:
        self._lost = self._silent = False

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["PostgresProxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self._held:
                writer.close()

    async def _serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        if self._lost:
            answers.transport.abort()
            return
        assert self._target.host is not None
        reader, writer = await asyncio.open_connection(self._target.host, self._target.port)
        back = asyncio.create_task(_pump(reader, answers))
        try:
            while data := await client.read(65_536):
                if self._silent or (self.hole and self.hole.at in data):
                    back.cancel()
                    await self._swallow(data, client, writer)
                    return
                if _COMMIT in data and self.cut is not Cut.NEVER:
                    await self._lose(data, writer)
                    break
                writer.write(data)
        except OSError:
            pass
        finally:
            back.cancel()
            answers.transport.abort()
            if writer not in self._held:
                writer.close()

    async def _lose(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.cut is Cut.AFTER_COMMIT:
            writer.write(data)
            await writer.drain()
        self.commits_lost += 1
        self.cut = Cut.NEVER
        self._lost = self.stay_lost

    async def _swallow(
        self, data: bytes, client: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The server's end stays open too, as it does when the network is gone."""
        self._held.append(writer)
        self.swallowed += 1
        if self.hole is not None:
            if self.hole.heard:
                writer.write(data)
                await writer.drain()
            self._silent = self.hole.swallows_all
            self.hole = None
        while await client.read(65_536):
            pass


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    except OSError:
        pass
    writer.close()  # but not when it is cancelled: then nobody is told
