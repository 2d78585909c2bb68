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
        self.asked = 0
        self.reads = True
        self.disconnects = 0
        self.at_work = asyncio.Event()
        self.at_work.set()
        self.state = ServerState()
        self.read_bytes: list[int] = []
        self.door = Door(lambda _inside: self.full, lambda _refused: None)
        self.doors = {line("POST", "/charge"): self.door}

    @property
    def connection(self) -> HttpProtocol:
        (connection,) = self.state.connections
        assert isinstance(connection, HttpProtocol)
        return connection

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        self.asked += 1
        if not self.reads:
            await Response(b"no", 401)(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            self.read_bytes.append(len(await body_of(request)))
        except ClientDisconnect:
            self.disconnects += 1
            return
        await self.at_work.wait()
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
    state, loop = app.state, asyncio.get_running_loop()
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


async def test_who_is_answered_before_his_body_has_come_is_not_inside(app: App) -> None:
    body = 10_000 * b"x"  # long enough to be asked about by its head
    head = line("POST", "/charge") + b"Host: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with serving(app, keep_alive_seconds=SHORT_SECONDS) as port:
        reader, writer = await opened(port)
        for _ in range(3):
            app.reads = False
            writer.write(head)
            assert await answer(reader) == b"HTTP/1.1 401 UNAUTHORIZED"
            app.reads = True
            writer.write(body)
            await asyncio.sleep(SHORT_SECONDS / 4)  # so that it is whole
            writer.write(REQUEST)
            assert await answer(reader) == b"HTTP/1.1 200 OK"
        app.reads = False
        writer.write(head)
        assert await answer(reader) == b"HTTP/1.1 401 UNAUTHORIZED"
        writer.write(body)
        assert SHORT_SECONDS / 2 < await closed_after(reader) < 4
        assert app.door.inside == 0


async def test_refusals_that_nobody_reads_do_not_pile_up(app: App) -> None:
    """While the way out is full the route answers, and its requests wait."""
    app.full = True
    async with serving(app) as port:
        reader, writer = await opened(port, REQUEST)
        assert await answer(reader) == b"HTTP/1.1 503 SERVICE UNAVAILABLE"
        app.connection.pause_writing()
        for _ in range(2):
            writer.write(REQUEST)
            await asyncio.sleep(0.02)
        assert app.asked == 1
        assert app.connection.flow.read_paused
        app.connection.resume_writing()
        assert [await answer(reader) for _ in range(2)] == 2 * [b"HTTP/1.1 200 OK"]
        writer.write(REQUEST)
        assert await answer(reader) == b"HTTP/1.1 503 SERVICE UNAVAILABLE"


async def test_who_does_not_read_his_answers_keeps_nobody_out(app: App) -> None:
    async with serving(app) as port:
        reader, writer = await opened(port, REQUEST)
        assert await answer(reader) == b"HTTP/1.1 200 OK"
        app.connection.pause_writing()
        writer.write(REQUEST)
        await asyncio.sleep(0.02)
        assert (app.asked, app.door.inside) == (2, 0)
        app.connection.resume_writing()
        assert await answer(reader) == b"HTTP/1.1 200 OK"
        app.at_work.clear()
        writer.write(REQUEST)
        await asyncio.sleep(0.02)
        assert (app.asked, app.door.inside) == (3, 1)
        app.connection.pause_writing()
        assert app.door.inside == 0
        app.at_work.set()
        app.connection.resume_writing()
        assert await answer(reader) == b"HTTP/1.1 200 OK"
        assert app.door.inside == 0


async def test_of_many_requests_behind_each_other_few_wait_and_all_are_answered(app: App) -> None:
    many = 5000
    async with serving(app) as port:
        reader, _ = await opened(port, many * REQUEST)
        for _ in range(many):
            assert await answer(reader) == b"HTTP/1.1 200 OK"
            assert len(app.connection.pipeline) <= protocol.BYTES_AT_A_TIME / len(REQUEST) + 1
        assert app.read_bytes == many * [len(BODY)]


async def test_a_request_that_comes_in_parts_behind_others_is_read_whole(app: App) -> None:
    lengths = [size * number for number in range(12) for size in (0, 1, 997, 8000)]
    head = line("POST", "/charge") + b"Host: x\r\nContent-Length: %d\r\n\r\n"
    async with serving(app) as port:
        reader, _ = await opened(port, b"".join(head % n + n * b"x" for n in lengths))
        for _ in lengths:
            assert await answer(reader) == b"HTTP/1.1 200 OK"
        assert app.read_bytes == lengths


async def test_a_head_is_as_large_in_one_piece_as_in_many(app: App) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + 9 * (b"X-A: " + 9000 * b"a" + b"\r\n") + b"\r\n"
    async with serving(app) as port:
        for pieces in (1, 3):
            reader, writer = await opened(port)
            size = len(head) // pieces + 1
            for begin in range(0, len(head), size):
                writer.write(head[begin : begin + size])
                await asyncio.sleep(0.02)
            assert b"431" in await answer(reader)
        reader, writer = await opened(port, head.replace(9000 * b"a", 900 * b"a"))
        assert await answer(reader) == b"HTTP/1.1 200 OK"


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
