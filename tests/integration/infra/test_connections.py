"""A connection that was refused at the door stays; one too many is told so, and ends."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Any

import pytest
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from uvicorn.server import ServerState

from picopay.infra import protocol
from picopay.infra.doors import Door, line
from picopay.infra.json import body_of
from picopay.infra.protocol import HttpProtocol

SHORT_SECONDS = 0.3
LONG_SECONDS = 30
BODY = b"{}"
REQUEST = line("POST", "/charge") + b"Host: x\r\nContent-Length: 2\r\n\r\n" + BODY

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class App:
    """Answers whatever it has read; its door can be closed."""

    def __init__(self) -> None:
        self.full = False
        self.disconnects = 0
        self.door = Door(lambda _inside: self.full, lambda _refused: None)
        self.doors = {line("POST", "/charge"): self.door}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        request = Request(scope, receive)
        try:
            await body_of(request)
        except ClientDisconnect:
            self.disconnects += 1
            return
        await Response(b"read")(scope, receive, send)


@pytest.fixture
def app() -> App:
    return App()


@asynccontextmanager
async def serving(app: App, *, keep_alive_seconds: float = LONG_SECONDS) -> AsyncGenerator[int]:
    config = uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType] - an ASGI application
        log_config=None,
        lifespan="off",
        proxy_headers=False,  # as `picopay serve` has it: a layer around the edge would hide doors
        timeout_keep_alive=keep_alive_seconds,  # pyright: ignore[reportArgumentType] - parts too
    )
    state, loop = ServerState(), asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: HttpProtocol(config, server_state=state, app_state={}, _loop=loop), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in _opened:
            writer.transport.abort()
        await asyncio.sleep(0.01)  # until they have noticed
        _opened.clear()
        for connection in list(state.connections):
            connection.transport.close()


_opened: list[asyncio.StreamWriter] = []


async def opened(port: int, sent: bytes = b"") -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _opened.append(writer)
    writer.write(sent)
    return reader, writer


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The status line; its body is read too."""
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
    return head.partition(b"\r\n")[0].upper()


async def closed_after(reader: asyncio.StreamReader) -> float:
    began = perf_counter()
    with suppress(ConnectionError):  # told while more was being sent
        async with asyncio.timeout(5):
            assert await reader.read() == b""
    return perf_counter() - began


async def test_who_is_refused_at_the_door_may_come_again_on_the_same_connection(app: App) -> None:
    async with serving(app, keep_alive_seconds=SHORT_SECONDS) as port:
        reader, writer = await opened(port)
        for app.full, status in ((True, b"503"), (False, b"200"), (True, b"503"), (True, b"503")):
            await asyncio.sleep(SHORT_SECONDS / 2)
            writer.write(REQUEST)
            assert status in await answer(reader)
        assert await closed_after(reader) > SHORT_SECONDS / 2


async def test_beyond_so_many_connections_the_next_is_told_and_closed(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "CONNECTIONS_MAX", 2)
    async with serving(app) as port:
        kept = [await opened(port, REQUEST) for _ in range(2)]
        assert [await answer(reader) for reader, _ in kept] == 2 * [b"HTTP/1.1 200 OK"]
        reader, _ = await opened(port)
        assert b"503" in await answer(reader)
        assert await reader.read() == b""
        kept[0][1].close()
        await kept[0][1].wait_closed()
        reader, _ = await opened(port, REQUEST)
        assert await answer(reader) == b"HTTP/1.1 200 OK"
