"""What every answer has in common, whatever is asked: one shape of problem, ids, headers."""

import json
import re
from collections.abc import Generator, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Message
from structlog.testing import capture_logs
from tests.api.steps import PROBLEM, SHAPE, a_key, a_user, charge, counted, keyed, problem, samples
from tests.processes import ADMIN_SECRET

from picopay.access.model import Scope
from picopay.infra.db import ConnectionLost, Db
from picopay.infra.problems import PROBLEMS

KEY: Final = "0198c0de-0000-7000-8000-00000000abcd"
BODY: Final = {"user_id": 1, "amount": 1, "currency": "USD"}
SECRET: Final = "password=hunter2 host=10.0.0.1 SELECT * FROM charges"
TIMED: Final = "charge_request_latency_seconds_count"
CLOSED_HANDLE: Final = "unable to perform operation on <TCPTransport>; the handler is closed"
CLOSED: Final = "postgresql://nobody:hunter2@127.0.0.1:1/nothing"


class Broken:
    """Stands in for a part of the application that fails in a way nobody has foreseen."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(SECRET)


@contextmanager
def broken(app: FastAPI) -> Generator[list[MutableMapping[str, Any]]]:
    """Meanwhile charging and the database fail; what is logged, line by line."""
    was = app.state.batcher, app.state.db
    app.state.batcher, app.state.db = Broken(), Broken()
    with capture_logs() as lines:
        yield lines
    app.state.batcher, app.state.db = was


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost database is waited for a moment only."""
    monkeypatch.setattr(Db.retrying, "__defaults__", (0.1,))


async def a_problem_of_every_kind(
    client: httpx2.AsyncClient, app: FastAPI, db: Db
) -> list[httpx2.Response]:
    no_scope = await a_key(db, scopes=[Scope.LEDGER])
    answers = [
        await client.post("/charge", json=BODY, headers={"X-API-Key": ""}),
        await client.get("/v1/charges", headers={"X-API-Key": "wrong"}),
        await client.post("/charge", json=BODY, headers=no_scope),
        await client.get("/v1/users/1", headers=no_scope),
        await client.get("/nothing"),
        await client.get("/v1/users/404"),
        await client.get("/docs/vendor/nothing.js"),
        await client.get("/problems/nothing"),
        await client.delete("/charge"),
        await client.post("/charge", content=b"x" * 70_000),
        await client.post("/v1/users", content=b"x" * 70_000),
        await client.post("/charge", content=b"{"),
        await client.post("/charge", content=b"{}"),
        await client.post("/v1/users", json={"id": 0}),
        await client.get("/v1/charges?limit=0"),
        await client.get("/v1/charges/x"),
        await client.get("/v1/charges?cursor=x"),
        await client.post("/charge", json=BODY, headers=keyed("x")),
        await client.post("/charge", json=BODY),
    ]
    with broken(app):
        answers += [await client.post("/charge", json=BODY), await client.get("/v1/users/1")]
    return answers


async def test_every_refusal_is_a_problem_of_one_shape(
    client: httpx2.AsyncClient, app: FastAPI, db: Db
) -> None:
    answers = await a_problem_of_every_kind(client, app, db)

    for answer in answers:
        document = problem(answer, answer.status_code, answer.json()["code"])
        status, title = PROBLEMS[document["code"]]
        assert (answer.status_code, document["title"]) == (status, title)
        assert isinstance(document["detail"], str)
        assert document["detail"]
        if document["code"] == "validation":
            assert all(list(error) == ["field", "message"] for error in document["errors"])
            assert list(document) == [*SHAPE, "errors"]
    statuses = {answer.status_code for answer in answers}
    assert statuses == {400, 401, 403, 404, 405, 413, 422, 500}


async def test_each_problem_names_a_page_that_explains_it(
    client: httpx2.AsyncClient, app: FastAPI, db: Db
) -> None:
    answers = await a_problem_of_every_kind(client, app, db)
    for answer in answers:
        explained = await client.get(answer.json()["type"])
        assert explained.status_code == 200
        assert explained.json()["status"] == answer.status_code


_CHARGE = {"user_id", "amount", "currency"}
_TRANSFER = (
    '{"transaction_id":"","source_account":"a","destination_account":"a",'
    '"amount":1.001,"currency":"EUR"}'
)
_TRANSFER_FIELDS = {"transaction_id", "destination_account", "amount"}
_PRODUCT = {"name", "price", "stock"}
_ORDER = {"user_email", "items", "user_id"}


@pytest.mark.parametrize(
    ("method", "path", "content", "fields"),
    [
        ("POST", "/charge", "{", {"body"}),
        ("POST", "/charge", "[]", {"body"}),
        ("POST", "/charge", "{}", {"user_id", "amount", "currency"}),
        ("POST", "/charge", '{"user_id":0,"amount":-1,"currency":"XXX"}', _CHARGE),
        ("POST", "/charge", '{"user_id":0,"amount":0.5,"currency":"JPY"}', {"user_id", "amount"}),
        ("POST", "/charge", '{"user_id":1,"amount":0,"currency":"XXX"}', {"amount", "currency"}),
        ("POST", "/charge", '{"user_id":1,"amount":-1,"currency":5}', {"amount", "currency"}),
        ("POST", "/charge", '{"user_id":1,"amount":true,"currency":"X"}', {"amount", "currency"}),
        ("POST", "/v1/users/1/deposits", '{"amount":"x","currency":"Y"}', {"amount", "currency"}),
        ("POST", "/v1/webhooks/transactions", _TRANSFER, _TRANSFER_FIELDS),
        ("POST", "/admin/products", '{"name":"","price":0.001,"stock":-1}', _PRODUCT),
        ("POST", "/orders", '{"user_email":"x","items":[],"user_id":7}', _ORDER),
        ("POST", "/v1/users/x/deposits", "{}", {"user_id"}),
        ("GET", "/v1/charges?limit=0&user_id=x", "", {"limit", "user_id"}),
        ("GET", "/v1/charges/x", "", {"charge_id"}),
        ("GET", "/v1/users/0/entries?limit=x", "", {"user_id", "limit"}),
    ],
)
async def test_every_wrong_place_is_named_wherever_it_is(
    client: httpx2.AsyncClient, method: str, path: str, content: str, fields: set[str]
) -> None:
    secret = {"X-Admin-Secret": ADMIN_SECRET}
    answer = await client.request(method, path, content=content, headers=secret)
    named = [error["field"] for error in problem(answer, 422, "validation")["errors"]]
    assert (len(named), set(named)) == (len(fields), fields)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/charge", {"POST"}),
        ("PUT", "/charge", {"POST"}),
        ("OPTIONS", "/charge", {"POST"}),
        ("HEAD", "/charge", {"POST"}),
        ("TRACE", "/charge", {"POST"}),
        ("MADEUP", "/charge", {"POST"}),
        ("DELETE", "/v1/users", {"POST"}),
        ("POST", "/v1/charges", {"GET"}),
        ("DELETE", "/v1/users/1", {"GET"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("POST", "/docs", {"GET", "HEAD"}),
        ("POST", "/docs/assets/docs.js", {"GET", "HEAD"}),
    ],
)
async def test_another_method_is_told_what_is_allowed(
    client: httpx2.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["content-type"] == PROBLEM
    assert set(answer.headers["allow"].split(", ")) == allowed
    if method != "HEAD":
        problem(answer, 405, "method-not-allowed")


@pytest.mark.parametrize("path", ["/charge/", "//charge", "/Charge", "/v1", "/v1/users/1/", "/%00"])
async def test_a_path_is_exactly_what_it_is(client: httpx2.AsyncClient, path: str) -> None:
    for method in ("GET", "POST"):
        answer = await client.request(method, "http://picopay" + path, json=BODY)
        problem(answer, 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/charge"),
        ("POST", "/v1/charges/batch"),
        ("GET", "/v1/charges"),
        ("GET", f"/v1/charges/{KEY}"),
        ("POST", "/v1/users"),
        ("GET", "/v1/users/1"),
        ("POST", "/v1/users/1/deposits"),
        ("GET", "/v1/users/1/entries"),
        ("GET", "/v1/accounts/world"),
        ("GET", "/v1/accounts/world/entries"),
    ],
)
async def test_an_error_of_ours_tells_nothing_of_our_insides(
    client: httpx2.AsyncClient, app: FastAPI, method: str, path: str
) -> None:
    body = {**BODY, "id": 1, "charges": [BODY]}

    with broken(app) as lines:
        answer = await client.request(method, path, json=body if method == "POST" else None)

    told = problem(answer, 500, "internal-error")
    assert list(told) == SHAPE
    for inside in ("hunter2", "SELECT", "RuntimeError", "Traceback", "10.0.0.1", "picopay/"):
        assert inside not in answer.text
    (line,) = [line for line in lines if line["event"] == "http.unhandled"]
    assert (line["log_level"], line["path"]) == ("error", path)
    assert (await client.get("/health")).status_code == 200


async def test_without_the_database_reads_answer_503_and_when_to_come_again(
    client: httpx2.AsyncClient, app: FastAPI, impatient: None
) -> None:
    was, app.state.db = app.state.db, Db(CLOSED)
    for path in ("/v1/users/1", "/v1/charges", "/v1/accounts/world", f"/v1/charges/{KEY}"):
        answer = await client.get(path)
        problem(answer, 503, "database-unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert "hunter2" not in answer.text
    await app.state.db.close()
    app.state.db = was


async def test_a_connection_lost_in_the_middle_is_503_too(
    client: httpx2.AsyncClient, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_user(client)

    def lost(*_: object) -> None:
        raise ConnectionLost(SECRET)

    monkeypatch.setattr(Db, "read", lost)
    answer = await client.get("/v1/users/1/entries?currency=USD")
    problem(answer, 503, "database-unavailable")
    assert "hunter2" not in answer.text


async def test_a_request_id_is_echoed_everywhere(client: httpx2.AsyncClient) -> None:
    await a_user(client)
    headers = {"X-Request-ID": "order-42/retry:3"}
    for answer in (
        await client.get("/health", headers=headers),
        await charge(client, headers=headers),
        await client.post("/charge", content="{", headers=headers),
        await client.get("/nothing", headers=headers),
        await client.get("/docs", headers=headers),
    ):
        assert answer.headers.get_list("x-request-id") == ["order-42/retry:3"]
        if answer.status_code >= 400:
            assert answer.json()["request_id"] == "order-42/retry:3"


async def test_a_request_without_an_id_is_given_one(client: httpx2.AsyncClient) -> None:
    given = [(await client.get("/health")).headers["x-request-id"] for _ in range(3)]
    assert len(set(given)) == 3
    assert all(re.fullmatch(r"[0-9a-f-]{36}", text) for text in given)


@pytest.mark.parametrize(
    "text", [b"", b" ", b"a b", b"\xff", b"x" * 129, b"a\tb", b"\x00", "\u00e9".encode()]
)
async def test_an_invalid_request_id_is_replaced(client: httpx2.AsyncClient, text: bytes) -> None:
    for path in ("/health", "/nothing"):
        answer = await client.get(path, headers=httpx2.Headers([(b"x-request-id", text)]))
        (given,) = answer.headers.get_list("x-request-id")
        assert re.fullmatch(r"[0-9a-f-]{36}", given)


async def test_the_longest_request_id_is_kept(client: httpx2.AsyncClient) -> None:
    longest = "~!" * 64
    answer = await client.get("/health", headers={"X-Request-ID": longest})
    assert answer.headers["x-request-id"] == longest


async def test_every_answer_carries_the_security_headers(
    client: httpx2.AsyncClient, app: FastAPI, db: Db
) -> None:
    paths = ("/", "/health", "/docs", "/redoc", "/openapi.json", "/metrics", "/docs/assets/docs.js")
    answers = [await client.get(path) for path in paths]
    answers += await a_problem_of_every_kind(client, app, db)
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "no-store" in answer.headers["cache-control"]
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script" not in policy
        assert "http:" not in policy
        assert "server" not in answer.headers


@pytest.mark.parametrize("declared", ["abc", "-5", "+5", "1_0", "", "9" * 5000, "1e3", "0x10"])
async def test_a_content_length_that_is_no_length_is_no_5xx(
    client: httpx2.AsyncClient, declared: str
) -> None:
    answer = await client.post("/charge", content=b"{}", headers={"Content-Length": declared})
    assert answer.status_code in (413, 422)


async def test_a_caller_who_leaves_in_the_middle_of_a_body_is_not_answered(
    client: httpx2.AsyncClient, app: FastAPI
) -> None:
    before = await counted(client), (await samples(client))[TIMED]
    for path in ("/charge", "/v1/users"):
        sent: list[Message] = []
        messages: Iterator[Message] = iter(
            [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
        )

        async def receive() -> Message:
            return next(messages)  # noqa: B023 - called before the next round

        async def send(message: Message) -> None:
            sent.append(message)  # noqa: B023 - likewise

        await app(a_scope(client, path), receive, send)
        assert sent == []
    assert (await counted(client), (await samples(client))[TIMED]) == before


def a_scope(client: httpx2.AsyncClient, path: str) -> dict[str, Any]:
    headers = [(b"x-api-key", client.headers["x-api-key"].encode())]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    return scope | {"query_string": b"", "root_path": "", "raw_path": path.encode()}


@pytest.mark.parametrize("path", ["/charge", "/v1/users"])
@pytest.mark.parametrize("broken_at", ["receive", "send"])
async def test_what_a_connection_refuses_whose_client_hung_up_is_no_error(
    client: httpx2.AsyncClient, app: FastAPI, path: str, broken_at: str
) -> None:
    async def receive() -> Message:
        if broken_at == "receive":
            raise RuntimeError(CLOSED_HANDLE)
        return {"type": "http.request", "body": json.dumps(BODY | {"id": 1}).encode()}

    async def send(message: Message) -> None:
        raise RuntimeError(CLOSED_HANDLE)

    scope = a_scope(client, path) | {"picopay.hung_up": lambda: True}
    with capture_logs() as lines:
        await app(scope, receive, send)
    assert "http.unhandled" not in {line["event"] for line in lines}


async def test_what_a_connection_refuses_whose_client_is_there_is_an_error(
    client: httpx2.AsyncClient, app: FastAPI
) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        raise RuntimeError(CLOSED_HANDLE)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = a_scope(client, "/charge") | {"picopay.hung_up": lambda: False}
    with capture_logs() as lines:
        await app(scope, receive, send)
    assert "http.unhandled" in {line["event"] for line in lines}
    assert sent[0]["status"] == 500


async def test_answers_are_counted_by_method_and_status(client: httpx2.AsyncClient) -> None:
    for _ in range(2):
        await client.request("MADEUP", "/charge")
    before = await samples(client)
    await client.request("MADEUP", "/charge")
    await client.get("/nothing")
    after = await samples(client)
    for labels in ('method="other",status="405"', 'method="GET",status="404"'):
        name = f"http_requests_total{{{labels}}}"
        assert after[name] == before.get(name, 0) + 1
    assert not any("MADEUP" in name or "nothing" in name for name in after)


async def test_a_request_of_another_method_is_no_charge(client: httpx2.AsyncClient) -> None:
    before = await counted(client)
    await client.get("/charge")
    assert await counted(client) == before
