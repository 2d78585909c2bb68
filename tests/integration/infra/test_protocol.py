"""What the server makes of bytes that two readers could read in two ways, or that never end."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, Final

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs
from tests.integration.infra.serving import serving

from picopay.infra import protocol
from picopay.infra.protocol import HEAD_BYTES_MAX, HEADERS_MAX, URL_BYTES_MAX

POST: Final = b"POST /told HTTP/1.1\r\nHost: x\r\n"
GET: Final = b"GET /told HTTP/1.1\r\nHost: x\r\n"
CHUNKED: Final = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE: Final = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
PATIENCE_SECONDS: Final = 0.2
LONG_BYTES: Final = 40_000_000


class Told:
    """An application that keeps what it was told, and answers with it; `/slow` takes its time."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.requests.append((scope["path"], body))
        if scope["path"] == "/slow":
            await asyncio.sleep(PATIENCE_SECONDS)
        content = b"x" * LONG_BYTES if scope["path"] == "/long" else json.dumps(len(body)).encode()
        headers = [(b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def port(told: Told) -> Iterator[int]:
    with serving(told) as listening:
        yield listening


@pytest.fixture(autouse=True)
def nothing_told(told: Told) -> None:
    told.requests.clear()


@pytest.fixture
async def line(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield reader, writer
    writer.close()


Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """All that is answered until the server closes."""
    async with asyncio.timeout(10):
        return await reader.read()


async def say(line: Line, *parts: bytes) -> bytes:
    """Sent part by part, each read for itself; then all that is answered."""
    for part in parts:
        line[1].write(part)
        await line[1].drain()
        await asyncio.sleep(0.02)
    return await rest_of(line[0])


def statuses(answered: bytes) -> list[int]:
    return [int(answer[:3]) for answer in answered.split(b"HTTP/1.1 ")[1:]]


# Of each: what two servers, one behind the other, could take for the end of different requests.
TWO_WAYS: Final[dict[str, tuple[bytes, int]]] = {
    "length and chunks": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks and length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (POST + b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n", 400),
    "one length twice": (POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
    "a list of lengths": (POST + b"Content-Length: 0, 40\r\n\r\n", 400),
    "a signed length": (POST + b"Content-Length: +0\r\n\r\n", 400),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "a huge length": (POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n", 400),
    "a length with a gap": (POST + b"Content-Length: 0 0\r\n\r\n", 400),
    "a length of no digits": (POST + b"Content-Length: \r\n\r\n", 400),
    "a space before a colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "another coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "chunked is not last": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "a coding below": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "nearly chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "a hidden coding": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks in HTTP/1.0": (
        b"POST /told HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a folded line": (GET + b"X-A: b\r\n c\r\n\r\n", 400),
    "a folded coding": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    "a fold at once": (b"GET /told HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "bare LF": (b"GET /told HTTP/1.1\nHost: x\n\n", 400),
    "one bare LF": (GET + b"X-A: b\nX-B: c\r\n\r\n", 400),
    "bare CR": (GET + b"X-A: b\rX-B: c\r\n\r\n", 400),
    "NUL in a value": (GET + b"X-A: b\0c\r\n\r\n", 400),
    "NUL in a name": (GET + b"X\0A: b\r\n\r\n", 400),
    "a control character": (GET + b"X-A: b\x01c\r\n\r\n", 400),
    "a name that is none": (GET + b"X(A): b\r\n\r\n", 400),
    "no name": (GET + b": b\r\n\r\n", 400),
    "no colon": (GET + b"nonsense\r\n\r\n", 400),
    "no host": (b"GET /told HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + b"Host: y\r\n\r\n", 400),
    "a fragment": (b"GET /told#x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "NUL in the path": (b"GET /to\0ld HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "bytes in the path": (b"GET /told\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a path without its slash": (b"GET told HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a tunnel": (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "HTTP/0.9": (b"GET /told\r\n\r\n", 505),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a long URL": (b"GET /" + b"x" * URL_BYTES_MAX + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "many headers": (GET + b"X-A: b\r\n" * HEADERS_MAX + b"\r\n", 431),
}


@pytest.mark.parametrize("case", TWO_WAYS)
async def test_a_head_that_can_be_read_in_two_ways_is_refused_with_all_that_follows(
    line: Line, told: Told, case: str
) -> None:
    head, status = TWO_WAYS[case]
    answered = await say(line, head + SMUGGLED)
    assert statuses(answered) == [status]
    assert b"connection: close\r\n" in answered
    assert told.requests == []


@pytest.mark.parametrize(
    "chunks",
    [
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"2 \r\n{}\r\n0\r\n\r\n",
        b"2\n{}\n0\n\n",
        b"2;\n{}\r\n0\r\n\r\n",
        b"2\r\n{}more\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    ],
    ids=repr,
)
async def test_chunks_that_are_none_are_refused(line: Line, told: Told, chunks: bytes) -> None:
    assert statuses(await say(line, CHUNKED + chunks + SMUGGLED)) == [400]
    assert told.requests == []


LAST: Final = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", b"{}"),
        (CHUNKED + b"2;name=value\r\n{}\r\n0\r\nX-Trailer: y\r\n\r\n", b"{}"),
        (POST + b"Content-Length: 2\r\n\r\n{}", b"{}"),
        (b"\r\n\r\n" + GET + b"\r\n", b""),
        (b"GET http://elsewhere/told HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (GET + b"X-A: b\r\n" * (HEADERS_MAX - 1) + b"\r\n", b""),
        (GET + b"Content-Length: 38\r\n\r\n" + SMUGGLED + b"123", SMUGGLED + b"123"),
    ],
    ids=repr,
)
async def test_what_can_be_read_in_one_way_only_is_read_so(
    line: Line, told: Told, sent: bytes, body: bytes
) -> None:
    assert statuses(await say(line, sent + LAST)) == [200, 200]
    assert told.requests == [("/told", body), ("/last", b"")]


async def test_http_1_0_is_answered_once_and_closed(line: Line, told: Told) -> None:
    assert statuses(await say(line, b"GET /told HTTP/1.0\r\n\r\n" + SMUGGLED)) == [200]
    assert told.requests == [("/told", b"")]


async def test_nothing_is_read_after_a_connection_was_to_be_closed(line: Line, told: Told) -> None:
    assert statuses(await say(line, LAST + SMUGGLED)) == [200]
    assert told.requests == [("/last", b"")]


@pytest.mark.parametrize("parts", [1, 2, 3])
async def test_an_upgrade_that_is_offered_is_passed_over_with_nothing_lost(
    line: Line, told: Told, parts: int
) -> None:
    """As Java's client offers it, with every first request over plain HTTP."""
    head, body = POST + UPGRADE + b"Content-Length: 2\r\n\r\n", b"{}"
    split = {1: [head + body + LAST], 2: [head + body, LAST], 3: [head, body, LAST]}[parts]
    assert statuses(await say(line, *split)) == [200, 200]
    assert told.requests == [("/told", b"{}"), ("/last", b"")]


async def test_many_offers_in_a_row_are_passed_over(line: Line, told: Told) -> None:
    assert statuses(await say(line, (GET + UPGRADE + b"\r\n") * 300 + LAST)) == [200] * 301


async def test_what_follows_a_whole_request_cannot_spoil_its_answer(line: Line, told: Told) -> None:
    slow = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
    for nonsense in (b"nonsense\r\n\r\n", TWO_WAYS["two hosts"][0], b"x" * (HEAD_BYTES_MAX + 1)):
        reader, writer = await asyncio.open_connection(*line[1].get_extra_info("peername"))
        answered = await say((reader, writer), slow, nonsense, b"more of it")
        assert statuses(answered) == [200]
        writer.close()
    assert told.requests == [("/slow", b"")] * 3


async def test_a_broken_body_behind_an_unanswered_request_is_not_answered_in_its_place(
    line: Line, told: Told
) -> None:
    slow = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
    assert statuses(await say(line, slow + CHUNKED + b"nonsense")) == []
    assert told.requests == [("/slow", b"")]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "ARRIVAL_SECONDS_MAX", PATIENCE_SECONDS)
    monkeypatch.setattr(protocol, "LOOK_SECONDS", PATIENCE_SECONDS / 4)


async def trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Byte by byte, for as long as the other side bears it."""
    for byte in data:
        if writer.is_closing():
            return
        writer.write(bytes([byte]))
        await asyncio.sleep(PATIENCE_SECONDS / 8)


BEGINNINGS: Final = {
    "head": (b"G", b"ET /told HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"x" * 1000),
    "blank lines": (b"\r\n", b"\r\n" * 500),
    "body": (POST + b"Content-Length: 1000\r\n\r\n", b"x" * 999),
    "chunks": (CHUNKED + b"1\r\n", b"x\r\n1\r\n" * 500),
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_a_request_that_is_not_finished_is_told_so_and_given_up(
    impatient: None, port: int, told: Told, beginning: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(BEGINNINGS[beginning][0])
    assert statuses(await rest_of(reader)) == [408]
    writer.close()
    assert told.requests == []


@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_a_request_that_comes_byte_by_byte_is_given_up_too(
    impatient: None, port: int, told: Told, beginning: str
) -> None:
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    first, rest = BEGINNINGS[beginning]
    sending = asyncio.create_task(trickle(writer, first + rest))
    with suppress(ConnectionResetError):  # closed while we were speaking
        await rest_of(reader)
    sending.cancel()
    writer.close()
    assert PATIENCE_SECONDS < time.monotonic() - began < 10
    assert told.requests == []


async def test_a_connection_on_which_nothing_is_asked_is_closed_without_a_word(
    impatient: None, port: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await rest_of(reader) == b""
    writer.close()


async def test_who_waits_for_us_is_not_given_up(impatient: None, port: int, told: Told) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    slow = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
    assert statuses(await say((reader, writer), slow * 4 + LAST)) == [200] * 5
    writer.close()


async def test_who_does_not_read_the_answer_is_given_up(impatient: None, port: int) -> None:
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(10)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(PATIENCE_SECONDS * 4)
        assert await asyncio.to_thread(_left, deaf) < LONG_BYTES


def _left(deaf: socket.socket) -> int:
    """How much still comes, from what was on its way."""
    parts = iter(lambda: len(deaf.recv(1 << 20)), 0)
    return sum(parts)


async def test_a_refusal_is_logged_by_its_status_alone(line: Line) -> None:
    with capture_logs() as lines:
        await say(line, GET + b"X-API-Key: hunter2\r\nHost: y\r\n\r\n")
    refused: dict[str, Any] = dict(lines[0])
    assert refused == {"event": "http.refused", "log_level": "warning", "status": 400}
