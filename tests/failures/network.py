"""A line between a program and a server, which can be cut, slowed, or fall silent."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

_READ_BYTES = 65_536


class Line:
    """Passes bytes on. What happens to connections is up to who holds it."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._ends: set[asyncio.StreamWriter] = set()
        self._silenced: set[asyncio.StreamWriter] = set()
        self.delay_seconds = 0.0

    @property
    def url(self) -> str:
        user = self._target.netloc.rpartition("@")[0]
        here = f"{user}@127.0.0.1:{self._port}" if user else f"127.0.0.1:{self._port}"
        return urlunsplit(self._target._replace(netloc=here))

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["Line"]:
        await self.restore()
        try:
            yield self
        finally:
            await self.cut()

    async def cut(self) -> None:
        """Every connection breaks, and new ones are refused."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._ends):
            writer.transport.abort()

    async def restore(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def silence(self) -> int:
        """The connections there are go on to exist, and nothing comes through any more."""
        self._silenced |= self._ends
        return len(self._silenced)

    def hang_up(self) -> None:
        """The silent ones are found dead in the end."""
        for writer in self._silenced:
            writer.transport.abort()
        self._silenced.clear()

    async def _serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        assert self._target.hostname is not None
        try:
            reader, writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            answers.transport.abort()
            return
        ends = {answers, writer}
        self._ends |= ends
        try:
            await asyncio.gather(self._pass(client, writer), self._pass(reader, answers))
        finally:
            self._ends -= ends
            for end in ends:
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if writer not in self._silenced:
                    writer.write(data)
                    await writer.drain()
        if writer not in self._silenced:
            writer.close()
