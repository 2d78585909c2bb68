"""The shorter way for plain requests answers as uvicorn's own way does."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
from starlette.types import Receive, Scope, Send
from tests.embedded.world import wait_until
from tests.integration.infra.serving import serving

from picopay.infra.accepting import Loop
from picopay.infra.doors import Door, line
from picopay.infra.exchange import BODY_DIGITS_MAX, Exchange

HOST: Final = b"Host: x\r\n"
CLOSE: Final = b"Connection: close\r\n"
LAST: Final = b"GET /last HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
BODY: Final = b'{"user_id": 1}'
CHARGE_SECONDS: Final = 0.05
BUSY_TURNS: Final = 12
CALLERS: Final = 150


class App:
    """Tells what came by which way, or misbehaves as its path says."""

    def __init__(self) -> None:
        self.door = Door(lambda inside: inside >= CALLERS, lambda _: None)
        self.doors = {line("POST", "/charge"): self.door}
        self.seen: list[tuple[bool, Scope, bytes]] = []
        self.left: list[str] = []
        self.insides: list[int] = []
        self.charge_seconds = CHARGE_SECONDS
        self.is_busy, self.all_have_come = threading.Event(), threading.Event()
        self.turns = 0
        self.told_in_turns: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        is_short = isinstance(getattr(send, "__self__", None), Exchange)
        self.seen.append((is_short, scope, body))
        self.insides.append(self.door.inside)
        answer = getattr(self, scope["path"].strip("/"), self.told)
        await answer(receive, send)

    async def told(self, _receive: Receive, send: Send) -> None:
        self.told_in_turns.append(self.turns)
        await self._answer(send, b"told")

    async def charge(self, _receive: Receive, send: Send) -> None:
        await asyncio.sleep(self.charge_seconds)
        await self._answer(send, b"charged")

    async def parts(self, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def waits(self, receive: Receive, send: Send) -> None:
        """For the client to leave, as whoever streams does."""
        self.left.append((await receive())["type"])
        await self._answer(send, b"too late")

    async def injects(self, _receive: Receive, send: Send) -> None:
        await self._answer(send, b"told", (b"x-said", b"a\r\nx-injected: 1"))

    async def short(self, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"9")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"less"})

    async def fails(self, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")

    async def silent(self, _receive: Receive, _send: Send) -> None:
        pass

    async def busy(self, _receive: Receive, send: Send) -> None:
        """Nobody else gets on until all have come; then turns of the event loop are counted."""
        self.is_busy.set()
        assert self.all_have_come.wait(30)
        for _ in range(BUSY_TURNS):
            self.turns += 1
            await asyncio.sleep(0)
        await self._answer(send, b"told")

    @staticmethod
    async def _answer(send: Send, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        length = (b"content-length", b"%d" % len(body))
        message = {"type": "http.response.start", "status": 200, "headers": [length, *headers]}
        await send(message)
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def port(app: App) -> Iterator[int]:
    with serving(app) as listening:
        yield listening


@pytest.fixture
async def connection(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield reader, writer
    writer.close()


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def asked(path: bytes, *headers: bytes, body: bytes = b"", method: bytes = b"POST") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    head = b"".join((method, b" ", path, b" HTTP/1.1\r\n", HOST, length, *headers))
    return head + b"\r\n" + body


async def say(connection: Connection, *parts: bytes) -> bytes:
    """All that is answered until the server closes."""
    for part in parts:
        connection[1].write(part)
        await connection[1].drain()
        await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        return await connection[0].read()


def without_dates(answered: bytes) -> list[bytes]:
    return [line for line in answered.split(b"\r\n") if not line.startswith((b"date", b"server"))]


PLAIN: Final = {
    "on a connection to be kept": asked(b"/told", b"Connection: keep-alive\r\n", body=BODY),
    "with a body": asked(b"/told", body=BODY),
    "without a body": b"GET /told HTTP/1.1\r\n" + HOST + b"\r\n",
    "with a query": asked(b"/told?a=1&b=%20", body=BODY).replace(b"%20", b"+"),
    "in two pieces": asked(b"/told", body=BODY),
}
NOT_PLAIN: Final = {
    "a header twice": asked(b"/told", b"X-A: 1\r\n", b"X-A: 2\r\n", body=BODY),
    "an escaped path": asked(b"/t%6Fld", body=BODY),
    "two slashes": asked(b"//told", body=BODY),
    "a large body": asked(b"/told", body=b"x" * 10**BODY_DIGITS_MAX),
    "chunks": b"POST /told HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a body to be asked for": asked(b"/told", b"Expect: 100-continue\r\n", body=BODY),
}


@pytest.mark.parametrize("request_", PLAIN.values(), ids=PLAIN)
async def test_a_plain_request_goes_the_shorter_way(
    connection: Connection, app: App, request_: bytes
) -> None:
    answered = await say(connection, request_[:-5], request_[-5:], LAST)
    assert [is_short for is_short, _, _ in app.seen] == [True, False]
    _, scope, body = app.seen[0]
    assert (scope["path"], scope["http_version"]) == ("/told", "1.1")
    assert scope["query_string"] == (b"a=1&b=+" if b"?" in request_ else b"")
    assert body == request_.partition(b"\r\n\r\n")[2]
    first, second = answered.split(b"HTTP/1.1 ")[1:]
    assert without_dates(first)[:-2] == [
        line for line in without_dates(second)[:-2] if line != b"connection: close"
    ]
    assert first.endswith(b"\r\n\r\ntold")


@pytest.mark.parametrize("request_", NOT_PLAIN.values(), ids=NOT_PLAIN)
async def test_what_is_not_plain_goes_the_longer_way_to_the_same_answer(
    connection: Connection, app: App, request_: bytes
) -> None:
    answered = await say(connection, request_, LAST)
    assert not any(is_short for is_short, _, _ in app.seen)
    assert answered.count(b"\r\n\r\ntold") == 2


async def test_the_application_begins_when_the_body_is_whole(
    connection: Connection, app: App
) -> None:
    connection[1].write(asked(b"/told", body=BODY)[:-1])
    await asyncio.sleep(0.1)
    assert app.seen == []
    connection[1].close()
    await asyncio.sleep(0.1)
    assert app.seen == []


async def test_an_answer_in_parts_comes_in_parts(connection: Connection, app: App) -> None:
    answered = await say(connection, asked(b"/parts"), LAST)
    assert app.seen[0][0]
    assert b"transfer-encoding: chunked" in answered
    assert b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n" in answered


async def test_head_is_answered_without_a_body(connection: Connection) -> None:
    head = b"HEAD /told HTTP/1.1\r\n" + HOST + b"\r\n"
    first, second = (await say(connection, head, LAST)).split(b"HTTP/1.1 ")[1:]
    assert first.endswith(b"\r\n\r\n")
    assert b"content-length: 4" in first
    assert second.endswith(b"told")


async def test_a_second_look_for_a_body_waits_until_the_client_has_left(
    connection: Connection, app: App
) -> None:
    connection[1].write(asked(b"/waits"))
    await asyncio.sleep(0.1)
    assert app.left == []
    connection[1].close()
    await asyncio.sleep(0.1)
    assert app.left == ["http.disconnect"]


@pytest.mark.parametrize("path", [b"/injects", b"/short", b"/fails", b"/silent"])
async def test_what_an_application_does_wrong_never_reaches_the_client_as_it_is(
    connection: Connection, path: bytes
) -> None:
    answered = await say(connection, asked(path))
    assert answered == b"" or answered.startswith((b"HTTP/1.1 500 ", b"HTTP/1.1 200 OK"))
    assert b"x-injected: 1" not in answered.lower()
    if path in (b"/fails", b"/silent"):
        assert answered.startswith(b"HTTP/1.1 500 ")


async def test_requests_behind_each_other_are_answered_in_order(
    connection: Connection, app: App
) -> None:
    answered = await say(connection, asked(b"/charge") + asked(b"/told", body=BODY) + LAST)
    assert [scope["path"] for _, scope, _ in app.seen] == ["/charge", "/told", "/last"]
    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in answered.split(b"HTTP/1.1 ")[1:]]
    assert bodies == [b"charged", b"told", b"told"]
    assert (app.insides, app.door.inside) == ([1, 0, 0], 0)


async def test_a_door_counts_who_is_inside_and_who_has_left(port: int, app: App) -> None:
    app.charge_seconds = 3.0
    at_once = range(CALLERS + 50)
    callers = [await asyncio.open_connection("127.0.0.1", port) for _ in at_once]
    for _, writer in callers:
        writer.write(asked(b"/charge", body=BODY))
    leaving, staying = callers[: CALLERS // 2], callers[CALLERS // 2 :]
    await asyncio.to_thread(wait_until, lambda: len(app.insides) == CALLERS)
    assert app.door.inside == CALLERS
    for _, writer in leaving:
        writer.close()
    statuses = [(await reader.readline()).split()[1] for reader, _ in staying]
    assert sorted(statuses) == [b"200"] * (CALLERS - len(leaving)) + [b"503"] * 50
    await asyncio.to_thread(wait_until, lambda: app.door.inside == 0)
    for _, writer in callers:
        writer.close()
        await writer.wait_closed()


async def test_who_never_finishes_a_request_is_not_inside(port: int, app: App) -> None:
    whole = asked(b"/charge", body=BODY)
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CALLERS)]
    for number, (_, writer) in enumerate(slow):
        writer.write(whole[: len(line("POST", "/charge")) if number % 2 else -1])
    await asyncio.sleep(0.2)
    assert app.door.inside == 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(whole)
    assert b"200" in await reader.readline()
    for _, done in [*slow, (reader, writer)]:
        done.close()
        await done.wait_closed()


async def test_all_who_connect_to_a_busy_server_are_let_in_at_once(port: int, app: App) -> None:
    async def come(path: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asked(path))
        return reader, writer

    busy = await come(b"/busy")
    assert await asyncio.to_thread(app.is_busy.wait, 30)
    callers = [await come(b"/told") for _ in range(CALLERS)]
    app.all_have_come.set()
    async with asyncio.timeout(30):
        for reader, writer in [*callers, busy]:
            assert b"200" in await reader.readuntil(b"\r\n")
            writer.close()
    # One a turn, the last would come when all the others have: after as many turns.
    assert len(app.told_in_turns) == CALLERS
    assert max(app.told_in_turns) < BUSY_TURNS


async def test_a_server_that_ends_takes_nobody_more() -> None:
    def run() -> None:
        loop = Loop()
        loop.run_until_complete(serve(loop))
        loop.close()

    async def serve(loop: Loop) -> None:
        server = await loop.create_server(asyncio.Protocol, sock=listener)
        assert server.is_serving()
        server.close()
        await server.wait_closed()
        assert not server.is_serving()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address: Any = listener.getsockname()
        await asyncio.to_thread(run)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
