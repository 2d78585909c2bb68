"""The outgoing HTTP client against servers that misbehave, each of them real."""

import asyncio
import gzip
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.processes import free_port

from picopay.infra.http import ANSWER_BYTES_MAX, Answer, Http, Unanswered, Unreachable

Behaviour = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
TOTAL_SECONDS_MAX = 0.5


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    http = Http(total_seconds_max=TOTAL_SECONDS_MAX)
    yield http
    await http.close()


class Server:
    def __init__(self, url: str) -> None:
        self.url = url
        self.received: list[bytes] = []
        self.connections = 0


@asynccontextmanager
async def answering(behave: Behaviour) -> AsyncGenerator[Server]:
    """A server that reads each request whole, with its body, and then does as told."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        told.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lengths = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Len")]
                size = int(lengths[0].partition(b":")[2]) if lengths else 0
                request = head + await reader.readexactly(size)
                told.received.append(request)
                await behave(request, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    told = Server(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield told
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def saying(*parts: bytes) -> Behaviour:
    async def behave(_request: bytes, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return behave


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def test_a_request_is_sent_as_given_and_answered(http: Http) -> None:
    async with answering(saying(whole(b"fine", status=b"201 Created"))) as server:
        answer = await http.send("POST", f"{server.url}/a?b=c", b"\x00body", {"X-Signature": "s"})
    assert answer == Answer(201, b"fine")
    head, _, body = server.received[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert b"\r\nX-Signature: s\r\n" in head
    assert b"\r\nUser-Agent: picopay/" in head
    assert body == b"\x00body"


@pytest.mark.parametrize("status", [b"204 No Content", b"404 Not Found", b"500 Oh", b"503 Later"])
async def test_every_status_is_an_answer(http: Http, status: bytes) -> None:
    async with answering(saying(whole(b"", status=status))) as server:
        assert (await http.send("GET", server.url, None, {})).status == int(status[:3])


async def test_a_redirect_is_an_answer_and_is_not_followed(http: Http) -> None:
    async with answering(saying(whole(b"here"))) as other:
        moved = whole(b"", b"Location: " + other.url.encode(), status=b"307 Temporary Redirect")
        async with answering(saying(moved)) as server:
            assert (await http.send("POST", server.url, b"x", {})).status == 307
    assert other.connections == 0


async def test_cookies_are_not_kept(http: Http) -> None:
    async with answering(saying(whole(b"", b"Set-Cookie: a=b; Path=/"))) as server:
        for _ in range(2):
            await http.send("GET", server.url, None, {})
    assert not any(b"cookie" in request.lower() for request in server.received)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(saying(whole(b"proxy"))) as proxy, answering(saying(whole(b"x"))) as real:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("no_proxy", "")
        http = Http()
        assert (await http.send("GET", real.url, None, {})).body == b"x"
        await http.close()
    assert proxy.connections == 0


async def test_a_connection_is_used_again(http: Http) -> None:
    async with answering(saying(whole(b"ok"))) as server:
        for _ in range(3):
            await http.send("POST", server.url, b"x", {})
    assert (server.connections, len(server.received)) == (1, 3)


async def test_no_more_than_64_kib_of_an_endless_body_are_read(http: Http) -> None:
    async def pour(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 16_384)
            await writer.drain()

    async with answering(pour) as server:
        answer = await http.send("GET", server.url, None, {})
    assert answer == Answer(200, b"x" * ANSWER_BYTES_MAX)


async def test_a_gzip_bomb_stays_packed(http: Http) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    async with answering(saying(whole(bomb, b"Content-Encoding: gzip"))) as server:
        answer = await http.send("GET", server.url, None, {})
        assert b"Accept-Encoding: identity\r\n" in server.received[0]
    assert answer == Answer(200, bomb[:ANSWER_BYTES_MAX])


async def test_a_refused_connection_is_unreachable(http: Http) -> None:
    with pytest.raises(Unreachable, match=r"POST 127\.0\.0\.1"):
        await http.send("POST", f"http://127.0.0.1:{free_port()}/", b"x", {})


async def test_a_name_that_no_one_has_is_unreachable(http: Http) -> None:
    with pytest.raises(Unreachable):
        await http.send("POST", "http://nobody.invalid/", b"x", {})


async def test_a_connection_that_does_not_come_about_is_unreachable() -> None:
    """Its backlog is full: the kernel drops further attempts to connect."""
    http = Http(total_seconds_max=5, connect_seconds_max=0.2)
    async with full_backlog() as url:
        with pytest.raises(Unreachable, match=r"no connection within 0\.2 s"):
            await http.send("POST", url, b"x", {})
    await http.close()


@asynccontextmanager
async def full_backlog() -> AsyncGenerator[str]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1)
    port = listener.getsockname()[1]
    waiting = [asyncio.create_task(asyncio.open_connection("127.0.0.1", port)) for _ in range(4)]
    await asyncio.sleep(0.1)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        for task in waiting:
            task.cancel()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        for pair in ended:
            if isinstance(pair, tuple):
                pair[1].close()
        listener.close()


async def test_headers_that_come_too_slowly_leave_it_unanswered(http: Http) -> None:
    async def dawdle(_request: bytes, writer: asyncio.StreamWriter) -> None:
        for letter in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            writer.write(bytes([letter]))
            await writer.drain()
            await asyncio.sleep(0.02)

    async with answering(dawdle) as server:
        started = time.monotonic()
        with pytest.raises(Unanswered, match=r"no answer within 0\.5 s"):
            await http.send("POST", server.url, b"x", {})
    assert time.monotonic() - started < TOTAL_SECONDS_MAX + 1
    assert len(server.received) == 1


async def test_a_body_that_does_not_end_in_time_leaves_it_unanswered(http: Http) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    async with answering(saying(half)) as server:
        with pytest.raises(Unanswered):
            await http.send("POST", server.url, b"x", {})


async def test_a_reset_after_the_request_leaves_it_unanswered(http: Http) -> None:
    async def reset(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with answering(reset) as server:
        with pytest.raises(Unanswered):
            await http.send("POST", server.url, b"x", {})
    assert len(server.received) == 1


async def test_what_was_sent_once_is_never_called_unreachable(http: Http) -> None:
    """A repeatable method is sent again by the library, by when nobody listens any more."""
    listener: list[asyncio.Server] = []
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(received) < 2:
            received.append(await reader.readuntil(b"\r\n\r\n"))
            if len(received) == 1:
                writer.write(whole(b""))
        listener[0].close()
        writer.transport.abort()

    listener.append(await asyncio.start_server(serve, "127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener[0].sockets[0].getsockname()[1]}/"
    await http.send("PUT", url, None, {})
    with pytest.raises(Unanswered):
        await http.send("PUT", url, None, {})
    assert len(received) == 2


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\x16\x03 garbage\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_garbage_leaves_it_unanswered(http: Http, garbage: bytes) -> None:
    async with answering(saying(garbage)) as server:
        with pytest.raises(Unanswered):
            await http.send("POST", server.url, b"x", {})


@pytest.mark.parametrize("closed", [True, False])
async def test_what_is_told_of_a_failure_names_the_host_alone(http: Http, closed: bool) -> None:  # noqa: FBT001 - a case
    behave = saying(b"garbage\r\n\r\n")
    async with answering(behave) as server:
        url = f"http://127.0.0.1:{free_port()}" if closed else server.url
        with pytest.raises((Unreachable, Unanswered)) as told:
            await http.send("POST", f"{url}/hook/hunter1?token=hunter2", b"hunter3", {})
    assert "hunter" not in str(told.value)
    assert told.value.__cause__ is None
