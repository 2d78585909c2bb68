"""What follows from an outcome: a result, an error, or another try."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay.client.calls import charges, operations, orders, products, transactions, users
from picopay.client.errors import (
    AnswerUnreadable,
    Declined,
    NotSent,
    OutcomeUnknown,
    PicoPayError,
    Problem,
    RateLimited,
    ServerFailed,
    Unanswered,
    Unauthorized,
    Unavailable,
)
from picopay.client.model import ChargeItem, NewTransaction
from picopay.client.retries import (
    Done,
    Limits,
    Pause,
    Tried,
    pause_seconds,
    retry_after_seconds,
    settle,
)
from picopay.client.wire import Answer, Call, Garbage, Outcome, Repeat, Silence

LIMITS = Limits()
FIRST = Tried(1, 60.0, 0.5, "request-1")
CALL: Call[int] = Call(method="GET", path="/", read=lambda _: 7, key="key-1")
ONCE = replace(CALL, repeat=Repeat.NEVER)


def problem(status: int, code: str, headers: dict[str, str] | None = None) -> Answer:
    body = {"status": status, "code": code, "title": "T", "detail": "D", "request_id": "r"}
    return Answer(status, headers or {}, json.dumps(body).encode())


SILENT = Silence(sent=True, why="reset")
REFUSED = Silence(sent=False, why="refused")


@pytest.mark.parametrize(
    "outcome",
    [SILENT, REFUSED, problem(503, "overloaded"), problem(503, "outcome-unknown"),
     problem(503, "database-unavailable"), problem(429, "rate-limited"),
     Answer(502, {}, b"<html>"), Answer(504, {}, b"")],
    ids=str,
)  # fmt: skip
def test_what_passes_is_tried_again_and_only_where_that_is_safe(outcome: Outcome) -> None:
    assert isinstance(settle(CALL, outcome, FIRST, LIMITS), Pause)
    with pytest.raises(PicoPayError):
        settle(ONCE, outcome, FIRST, LIMITS)


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (problem(400, "insufficient-balance"), Declined),
        (problem(401, "api-key-invalid"), Unauthorized),
        (problem(500, "internal-error"), ServerFailed),
        (problem(409, "insufficient-stock"), Declined),
        (Garbage("too long"), AnswerUnreadable),
        (Answer(302, {"location": "http://elsewhere.example"}, b""), AnswerUnreadable),
    ],
    ids=str,
)
def test_what_would_be_answered_the_same_is_not_tried_again(
    outcome: Outcome, error: type[PicoPayError]
) -> None:
    with pytest.raises(error) as raised:
        settle(CALL, outcome, FIRST, LIMITS)
    assert raised.value.idempotency_key == "key-1"
    assert raised.value.request_id in {"r", "request-1"}


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (SILENT, Unanswered),
        (REFUSED, NotSent),
        (problem(503, "overloaded"), Unavailable),
        (problem(503, "outcome-unknown"), OutcomeUnknown),
        (problem(429, "rate-limited"), RateLimited),
        (Answer(502, {}, b"<html>"), Unavailable),
    ],
    ids=str,
)
def test_the_last_try_raises_what_it_met_with_the_key(
    outcome: Outcome, error: type[PicoPayError]
) -> None:
    last = FIRST.__class__(LIMITS.attempts_max, 60.0, 0.5, "request-1")
    with pytest.raises(error) as raised:
        settle(CALL, outcome, last, LIMITS)
    assert type(raised.value) is error
    assert raised.value.idempotency_key == "key-1"


def test_success_is_read() -> None:
    assert settle(CALL, Answer(201, {}, b""), FIRST, LIMITS) == Done(7)


def test_a_success_that_cannot_be_read_is_an_error_with_the_key() -> None:
    call = charges.create(user_id=1, amount=1, currency="USD")
    with pytest.raises(AnswerUnreadable, match=r"200: the body is no object") as raised:
        settle(call, Answer(200, {"x-request-id": "r"}, b"[]"), FIRST, LIMITS)
    assert raised.value.idempotency_key == call.key
    assert raised.value.request_id == "r"


def test_a_problem_is_read_whatever_is_missing() -> None:
    body = b'{"code": 7, "available": 1.50, "title": null}'
    with pytest.raises(Problem) as raised:
        settle(CALL, Answer(418, {"x-request-id": "r"}, body), FIRST, LIMITS)
    error = raised.value
    assert (error.code, error.status, error.request_id) == (None, 418, "r")
    assert str(error.fields["available"]) == "1.50"
    with pytest.raises(Problem, match="499: status 499"):
        settle(CALL, Answer(499, {}, b"\xff"), FIRST, LIMITS)


def test_what_was_asked_for_is_waited_for_unless_it_leads_too_far() -> None:
    pause = settle(CALL, problem(503, "overloaded", {"retry-after": "3"}), FIRST, LIMITS)
    assert isinstance(pause, Pause)
    assert 3 <= pause.seconds < 4
    short = replace(FIRST, seconds_left=2.0)
    with pytest.raises(Unavailable) as raised:
        settle(CALL, problem(503, "overloaded", {"retry-after": "3"}), short, LIMITS)
    assert raised.value.retry_after_seconds == 3


@given(
    attempts=st.integers(1, 4),
    chance=st.floats(0, 1, exclude_max=True),
    left=st.floats(0, 100),
    asked=st.none() | st.integers(0, 200),
)
def test_a_pause_ends_before_the_deadline_and_never_before_it_was_asked_to(
    attempts: int, chance: float, left: float, asked: int | None
) -> None:
    headers = {} if asked is None else {"retry-after": str(asked)}
    tried = Tried(attempts, left, chance)
    try:
        pause = settle(CALL, problem(503, "overloaded", headers), tried, LIMITS)
    except Unavailable:
        assert pause_seconds(tried, LIMITS, asked) >= left
        return
    assert isinstance(pause, Pause)
    assert (asked or 0) < pause.seconds < left
    assert pause.seconds <= (asked or 0) + LIMITS.pause_seconds_max


def test_pauses_double_and_chance_spreads_them() -> None:
    least = [pause_seconds(Tried(n, 60, 0.0), LIMITS, None) for n in range(1, 8)]
    assert least == [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 4.0]
    assert pause_seconds(Tried(1, 60, 0.999), LIMITS, None) == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("5", 5),
        (" 0 ", 0),
        ("-1", None),
        ("1.5", None),
        ("9" * 40, None),
        ("٣", None),
        ("Sun, 29 Nov 2026 14:00:07 GMT", 7),
        ("Sun, 29 Nov 2026 13:59:00 GMT", 0),
        ("Sun, 29 Nov 2026 13:59:00", None),
    ],
)
def test_retry_after_is_seconds_or_a_moment_by_the_servers_own_clock(
    text: str, seconds: float | None
) -> None:
    answer = Answer(503, {"retry-after": text, "date": "Sun, 29 Nov 2026 14:00:00 GMT"}, b"")
    assert retry_after_seconds(answer) == seconds


def test_which_calls_are_never_repeated() -> None:
    once = [
        products.create(name="n", price=1),
        products.update("p", stock=1),
        orders.cancel("o"),
        operations.replay(["d"], note="n"),
        operations.discard(["d"], note="n"),
        operations.health(),
    ]
    assert {call.repeat for call in once} == {Repeat.NEVER}
    moving = [
        charges.create(user_id=1, amount=1, currency="USD"),
        charges.refund("c"),
        users.deposit(1, amount=1, currency="USD"),
        orders.place(user_email="a@b", items=[]),
    ]
    assert all(call.key and call.repeat is Repeat.SAFE for call in moving)
    # Known by what they name: a user's id, a transaction's id, the key of each item.
    natural = [
        users.create(1),
        transactions.send(NewTransaction("t", "a", "b", 1, "USD")),
        charges.batch([ChargeItem(1, 1, "USD")]),
        products.archive("p"),
    ]
    assert {call.repeat for call in natural} == {Repeat.SAFE}
