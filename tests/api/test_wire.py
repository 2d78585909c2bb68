"""A real server process: what it makes of bytes on a socket, and what it writes to its log."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx2
import pytest
from tests.api.steps import a_user, charge, deposit, keyed, problem
from tests.conftest import Stores
from tests.forks import run_script
from tests.processes import API_KEY, Server

pytestmark = pytest.mark.xdist_group("server")

HEADERS: Final = f"Host: x\r\nX-API-Key: {API_KEY}\r\n".encode()
WRONG: Final = "pk_test_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.fixture
async def wire(clean: Stores, server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the real server."""
    headers = {"X-API-Key": API_KEY}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        yield client


async def talk(server: Server, sent: bytes) -> bytes:
    """Everything the server answers to these bytes before it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def logged(path: Path, request_id: str) -> list[dict[str, Any]]:
    """The log lines of one request."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("request_id") == request_id]


async def test_the_whole_log_is_json_with_event_level_and_time(
    wire: httpx2.AsyncClient, server: Server
) -> None:
    await a_user(wire)
    await charge(wire)
    lines = [line for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert lines
    for line in lines:
        assert {"event", "level", "timestamp"} <= set(json.loads(line))


async def test_the_request_id_is_in_the_log_lines_of_its_request(
    wire: httpx2.AsyncClient, server: Server
) -> None:
    await a_user(wire, amount="150")
    key = str(uuid4())
    answers = {
        event: await charge(wire, 100, headers=keyed(given) | {"X-Request-ID": f"at-{event}"})
        for event, given in (("first", key), ("again", key), ("poor", str(uuid4())))
    }
    charge_id = answers["first"].json()["transaction"]["id"]

    (first,) = logged(server.log, "at-first")
    assert (first["event"], first["level"]) == ("charge.succeeded", "info")
    assert (first["transaction_id"], first["user_id"]) == (charge_id, 1)
    (again,) = logged(server.log, "at-again")
    assert again["event"] == "charge.replayed"
    assert (again["idempotency_key"], again["transaction_id"]) == (key, charge_id)
    (poor,) = logged(server.log, "at-poor")
    assert poor["event"] == "charge.insufficient_balance"
    assert (poor["user_id"], poor["amount"], poor["currency"]) == (1, "100.00", "USD")


async def test_each_item_of_a_batch_has_its_line(wire: httpx2.AsyncClient, server: Server) -> None:
    await a_user(wire, amount="15")
    items = [{"user_id": user, "amount": 10, "currency": "USD"} for user in (1, 1, 404)]
    headers = {"X-Request-ID": "a-batch"}
    await wire.post("/v1/charges/batch", json={"charges": items}, headers=headers)
    events = sorted(line["event"] for line in logged(server.log, "a-batch"))
    assert events == ["charge.insufficient_balance", "charge.refused", "charge.succeeded"]


async def test_no_key_is_ever_logged_and_a_rejected_one_by_eight_characters(
    wire: httpx2.AsyncClient, server: Server
) -> None:
    await a_user(wire)
    await charge(wire)
    headers = {"X-API-Key": WRONG, "X-Request-ID": "a-wrong-key"}
    problem(await charge(wire, headers=headers), 401, "api-key-invalid")

    (line,) = logged(server.log, "a-wrong-key")
    assert (line["event"], line["level"]) == ("api_key.rejected", "warning")
    assert line["prefix"] == WRONG[:8]
    text = server.log.read_text()
    assert WRONG[:9] not in text
    assert API_KEY not in text


def test_a_traceback_on_a_terminal_shows_no_variables(tmp_path: Path) -> None:
    program = tmp_path / "failing.py"
    program.write_text("""
from picopay.infra import logs
def check(api_key):
    raise RuntimeError("failed")
def fail():
    try:
        check("".join(["hun", "ter", "2"]))
    except RuntimeError:
        logs.log.exception("charge.failed")
logs.configure_for_commands()
fail()
logs.configure("INFO", "console")
fail()
""")
    shown = run_script(program, [], os.environ, cwd=tmp_path)
    assert shown.returncode == 0
    for told in (shown.stdout, shown.stderr):
        assert "RuntimeError: failed" in told
        assert "hunter2" not in told


@pytest.mark.parametrize(
    "length",
    [b"abc", b"-1", b"1e3", b"0x10", b"1_0", b"", b"9" * 30, b"5\r\nContent-Length: 6"],
    ids=repr,
)
async def test_a_malformed_content_length_is_refused_and_the_connection_closed(
    wire: httpx2.AsyncClient, server: Server, length: bytes
) -> None:
    request = b"POST /charge HTTP/1.1\r\n" + HEADERS + b"Content-Length: " + length + b"\r\n\r\n{}"
    answer = await talk(server, request)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 "))
    assert answer.count(b"HTTP/1.1") == 1
    assert (await wire.get("/health")).status_code == 200


async def test_a_body_declared_too_large_is_refused_before_it_is_sent(
    server: Server, wire: httpx2.AsyncClient
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /charge HTTP/1.1\r\n" + HEADERS + b"Content-Length: 99999999\r\n\r\n")
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in head
    writer.close()


async def test_pipelined_charges_are_answered_in_their_order(
    wire: httpx2.AsyncClient, server: Server
) -> None:
    await a_user(wire, amount="10")
    content = json.dumps({"user_id": 1, "amount": 1, "currency": "USD"}).encode()
    head = b"POST /charge HTTP/1.1\r\n" + HEADERS
    one = head + b"X-Request-ID: n%d\r\nContent-Length: %d\r\n\r\n" + content
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    answer = await talk(server, b"".join(one % (n, len(content)) for n in range(5)) + last)

    assert answer.count(b"HTTP/1.1 200 OK") == 6
    places = [answer.index(b"x-request-id: n%d\r\n" % n) for n in range(5)]
    assert places == sorted(places)
    balances = [answer.index(b'"new_balance":%d.00' % balance) for balance in (9, 8, 7, 6, 5)]
    assert balances == sorted(balances)


async def test_chunks_add_up_to_a_body(wire: httpx2.AsyncClient, server: Server) -> None:
    await a_user(wire)
    content = json.dumps({"user_id": 1, "amount": 1, "currency": "USD"}).encode()
    chunks = b"".join(b"1\r\n" + content[i : i + 1] + b"\r\n" for i in range(len(content)))
    head = b"POST /charge HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
    answer = await talk(server, head + HEADERS + b"\r\n" + chunks + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")

    endless = b"".join(b"1000\r\n" + b"x" * 4096 + b"\r\n" for _ in range(17))
    refused = await talk(server, head + HEADERS + b"\r\n" + endless + b"0\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ],
    ids=repr,
)
async def test_what_is_not_http_is_refused(
    wire: httpx2.AsyncClient, server: Server, request_bytes: bytes
) -> None:
    answer = await talk(server, request_bytes)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert (await wire.get("/health")).status_code == 200


@pytest.mark.parametrize("path", [b"/docs", b"/", b"/health", b"/livez", b"/healthz", b"/readyz"])
async def test_an_answer_to_head_has_no_body(
    server: Server, wire: httpx2.AsyncClient, path: bytes
) -> None:
    asked = b"HEAD " + path + b" HTTP/1.1\r\nHost: x\r\n"
    answer = await talk(server, asked + b"Connection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 0" not in head
    assert body == b""


async def test_no_server_is_named(wire: httpx2.AsyncClient) -> None:
    answer = await wire.get("/health")
    assert "server" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_first_charge_of_a_deposit_is_the_same_over_the_wire(
    wire: httpx2.AsyncClient,
) -> None:
    await a_user(wire, amount="0")
    await deposit(wire, 1, "0.3")
    key = keyed()
    first, again = await charge(wire, 0.1, headers=key), await charge(wire, 0.1, headers=key)
    assert first.text.endswith('"new_balance":0.20}')
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"


_CHUNKED = b"POST /charge HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ",
        _CHUNKED + b"1\r\n{\r\n0\r\nX-Long: ",  # a trailer
        _CHUNKED + b"1;x=",  # a chunk's extension
    ],
)
async def test_what_surrounds_a_body_is_refused_before_it_is_gathered(
    server: Server, beginning: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(beginning)
    sent = 0
    try:
        while sent < 64 * 1024 * 1024:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
    except OSError:
        pass  # closed in our face
    finally:
        writer.close()
    assert sent < 16 * 1024 * 1024
    answered = b""
    with contextlib.suppress(OSError):
        answered = await reader.read()
    assert answered == b"" or answered.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 401 "))


async def test_a_head_of_ordinary_length_passes(server: Server) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: "
    assert b"200 OK" in await talk(server, head + b"x" * 30_000 + b"\r\n\r\n")
