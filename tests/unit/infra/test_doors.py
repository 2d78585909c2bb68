"""What is refused before it is read, how that is told, and what only the parser may judge."""

import asyncio
from email import message_from_bytes

import orjson
import pytest
from prometheus_client import REGISTRY

from picopay.infra import draining
from picopay.infra.doors import Door, line, refusal

LINE = line("POST", "/charge")
BODY = b'{"user_id": 1}'
HEAD = b"Host: x\r\nContent-Length: %d\r\n" % len(BODY)


def asked(head: bytes = HEAD, body: bytes = BODY) -> bytes | None:
    """The answer at a door whose queue is full."""
    return refusal(LINE + head + b"\r\n" + body)


def test_a_refusal_is_the_problem_that_the_route_would_answer() -> None:
    answer = asked(HEAD + b"X-REQUEST-ID: mine\r\n")
    assert answer is not None
    status, _, rest = answer.partition(b"\r\n")
    head, _, body = rest.partition(b"\r\n\r\n")
    headers = message_from_bytes(head)
    assert status == b"HTTP/1.1 503 Service Unavailable"
    assert headers["Content-Type"] == "application/problem+json"
    assert int(headers["Content-Length"]) == len(body)
    assert (headers["Retry-After"], headers["X-Request-ID"]) == ("1", "mine")
    assert headers["X-Content-Type-Options"] == "nosniff"
    problem = orjson.loads(body)
    assert (problem["code"], problem["status"], problem["request_id"]) == (
        "overloaded",
        503,
        "mine",
    )


@pytest.mark.parametrize("told", [b"", b"a b", b"x" * 129, "ä".encode()])
def test_a_request_id_that_is_none_is_replaced(told: bytes) -> None:
    answer = asked(HEAD + b"X-Request-ID: " + told + b"\r\n")
    assert answer is not None
    problem = orjson.loads(answer.partition(b"\r\n\r\n")[2])
    assert len(problem["request_id"]) == 36


def test_a_request_id_with_quotes_leaves_the_document_whole() -> None:
    answer = asked(HEAD + rb'X-Request-ID: a"b\c' + b"\r\n")
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head
    assert orjson.loads(body)["request_id"] == r'a"b\c'


async def test_those_refused_in_one_turn_are_counted_together_after_it() -> None:
    told: list[int] = []
    door = Door(lambda _inside: True, told.append)
    before = _shed()
    for turn in (3, 2):
        for _ in range(turn):
            door.count(asyncio.get_running_loop())
        await asyncio.sleep(0)
    assert told == [3, 2]
    assert _shed() - before == 5


def _shed() -> float:
    return REGISTRY.get_sample_value("requests_shed_total") or 0.0


def test_a_door_is_full_for_as_many_as_are_inside() -> None:
    door = Door(lambda inside: inside >= 2, lambda _: None)
    fullness: list[bool] = []
    for door.inside in (0, 1, 2, 1):
        fullness.append(door.full)
    assert fullness == [False, False, True, False]


def test_no_door_is_full_while_each_answer_ends_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draining, "has_begun", lambda: True)
    assert not Door(lambda _inside: True, lambda _: None).full


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (HEAD, BODY[:-1]),  # more of it comes
        (HEAD, BODY + b"P"),  # so does another request
        (b"Host: x\r\n", BODY),
        (HEAD + b"Transfer-Encoding: chunked\r\n", BODY),
        (HEAD + b"Expect: 100-continue\r\n", BODY),
        (HEAD + b"Proxy-Connection: close\r\n", BODY),
        (HEAD + b"Origin: https://shop.example\r\n", BODY),
        (HEAD + b"X-Request-ID: a\r\nX-Request-ID: b\r\n", BODY),
        (HEAD + b"Connection: close\r\n", BODY),
        (HEAD + b"Connection: keep-alive, close\r\n", BODY),
        (HEAD + b"Transfer-Encoding : chunked\r\n", BODY),
        (HEAD + b"X-A: b\nContent-Length: 0\r\n", BODY),
        (HEAD + b"X-A: b\n Transfer-Encoding: chunked\r\n", BODY),
        (HEAD + b"X-A: b\rContent-Length: 0\r\n", BODY),
        (HEAD + b"X-A: b\r\n folded\r\n", BODY),
        (HEAD + b"X-A: b\0c\r\n", BODY),
        (HEAD + b"Host: y\r\n", BODY),
        (HEAD + b"X-A: " + b"x" * 20_000 + b"\r\n", BODY),
        (HEAD + b"X-A: b\r\n" * 100, BODY),
        (b"Content-Length: %d\r\n" % len(BODY), BODY),
        (b"Host: x\r\nContent-Length: 000000000057\r\n", b""),
        (HEAD + b"Content-Length: 3\r\n", BODY),
        (b"Content-Length: -14\r\n", BODY),
        (b"Content-Length: 014x\r\n", BODY),
    ],
)
def test_what_only_the_parser_can_judge_is_let_in(head: bytes, body: bytes) -> None:
    assert asked(head, body) is None


def test_a_head_that_is_not_there_yet_is_let_in() -> None:
    assert refusal(LINE + b"Host: x\r\n") is None


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"Connection: keep-alive\r\n",
        HEAD + b"X-A: b\r\n" * 97,  # with the request's line, a hundred
        b"Host: x\r\nContent-Length: 0%d\r\n" % len(BODY),  # as the parser reads it too
    ],
)
def test_what_ends_where_the_parser_says_is_refused_like_any_other(head: bytes) -> None:
    assert asked(head) is not None
