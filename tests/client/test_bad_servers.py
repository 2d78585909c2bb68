"""Servers and networks that misbehave: what is sent again, and how it ends."""

import time
from dataclasses import replace

import pytest
from tests.bad_server import (
    Step,
    answering,
    dripping,
    flooding,
    hanging,
    hanging_up,
    misbehaving,
    raw,
    refusing,
)
from tests.client.conftest import Ask
from tests.processes import API_KEY, free_port

from picopay.client.calls import charges, operations, orders, products, users
from picopay.client.errors import (
    AnswerUnreadable,
    Declined,
    NotSent,
    OutcomeUnknown,
    PicoPayError,
    Problem,
    RateLimited,
    Unanswered,
    Unavailable,
)
from picopay.client.options import Options
from picopay.client.retries import Limits
from picopay.client.wire import Call

LIMITS = Limits(pause_seconds=0.02, pause_seconds_max=0.05, attempts_max=3)
QUICK = Options(limits=LIMITS)
USER: dict[str, object] = {"id": 1, "created_at": "2026-01-02T03:04:05Z", "balances": []}
CHARGE = {
    "transaction": {
        "id": "0198c6a2-0000-7000-8000-000000000000",
        "user_id": 1,
        "amount": 100,
        "currency": "JPY",
        "status": "success",
        "idempotency_key": None,
    },
    "new_balance": 900,
}
OK = answering(200, CHARGE)


def a_charge() -> Call[object]:
    return charges.create(user_id=1, amount=100, currency="JPY")


@pytest.mark.parametrize(
    "bad",
    [hanging_up, refusing(503, "overloaded"), refusing(503, "outcome-unknown"),
     refusing(429, "rate-limited"), answering(502, b"<html>bad gateway</html>"),
     raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"), raw(b"HTTP/1.1 200"), raw(b"\x00")],
    ids=["hangs-up", "overloaded", "unknown", "limited", "502", "half-a-body", "half-a-head", "no"],
)  # fmt: skip
def test_a_charge_is_sent_again_under_its_key_until_it_is_answered(ask: Ask, bad: Step) -> None:
    call = a_charge()
    with misbehaving(bad, bad, OK) as server:
        ask(server.url, call, options=QUICK)
    assert len(server.got) == 3
    assert {got.headers["idempotency-key"] for got in server.got} == {call.key}
    assert len({got.body for got in server.got}) == 1


def test_retry_after_is_honoured(ask: Ask) -> None:
    with misbehaving(refusing(503, "overloaded", Retry_After="1"), OK) as server:
        ask(server.url, a_charge(), options=QUICK)
    assert server.got[1].at - server.got[0].at >= 1


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(ask: Ask) -> None:
    began = time.monotonic()
    with (
        misbehaving(refusing(429, "rate-limited", Retry_After="3600")) as server,
        pytest.raises(RateLimited) as raised,
    ):
        ask(server.url, a_charge(), options=QUICK)
    assert time.monotonic() - began < 30
    assert raised.value.retry_after_seconds == 3600
    assert raised.value.request_id == "r"


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (hanging_up, Unanswered),
        (refusing(503, "overloaded"), Unavailable),
        (refusing(503, "outcome-unknown"), OutcomeUnknown),
    ],
    ids=["hangs-up", "overloaded", "unknown"],
)
def test_at_the_last_try_the_error_has_the_key(
    ask: Ask, bad: Step, error: type[PicoPayError]
) -> None:
    call = a_charge()
    with misbehaving(bad, bad, bad) as server, pytest.raises(error) as raised:
        ask(server.url, call, options=QUICK)
    assert len(server.got) == 3
    assert type(raised.value) is error
    assert raised.value.idempotency_key == call.key


@pytest.mark.parametrize("bad", [hanging_up, refusing(503, "overloaded")], ids=["lost", "busy"])
@pytest.mark.parametrize(
    "call",
    [products.create(name="n", price=1), products.update("p", stock=1), orders.cancel("o"),
     operations.discard(["d"], note="n")],
    ids=lambda call: call.path,
)  # fmt: skip
def test_what_has_no_key_is_sent_once(ask: Ask, bad: Step, call: Call[object]) -> None:
    with misbehaving(bad, OK) as server, pytest.raises((Unanswered, Unavailable)):
        ask(server.url, call, options=QUICK)
    assert len(server.got) == 1


def test_a_refusal_is_not_sent_again(ask: Ask) -> None:
    with (
        misbehaving(refusing(400, "insufficient-balance"), OK) as server,
        pytest.raises(Declined, match="as told"),
    ):
        ask(server.url, a_charge(), options=QUICK)
    assert len(server.got) == 1


def test_nobody_there_is_told_apart_from_no_answer(ask: Ask) -> None:
    call = a_charge()
    with pytest.raises(NotSent) as raised:
        ask(f"http://127.0.0.1:{free_port()}", call, options=QUICK)
    assert raised.value.idempotency_key == call.key


@pytest.mark.parametrize(
    "bad",
    [hanging, dripping(b"HTTP/1.1 200 OK\r\nX-Long: "),
     dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")],
    ids=["silent", "endless-head", "endless-body"],
)  # fmt: skip
def test_the_deadline_is_kept_whatever_the_server_does(ask: Ask, bad: Step) -> None:
    limits = replace(LIMITS, attempt_seconds=0.3, deadline_seconds=0.5)
    call = a_charge()
    began = time.monotonic()
    with misbehaving(bad, bad, bad) as server, pytest.raises(Unanswered) as raised:
        ask(server.url, call, options=Options(limits=limits))
    assert 0.25 < time.monotonic() - began < 5
    assert len(server.got) == 2
    assert raised.value.idempotency_key == call.key


def test_an_answer_without_end_is_not_taken(ask: Ask) -> None:
    options = Options(limits=replace(LIMITS, answer_bytes_max=1_000_000))
    with misbehaving(flooding) as server, pytest.raises(AnswerUnreadable, match="longer"):
        ask(server.url, a_charge(), options=options)
    assert len(server.got) == 1


def test_an_answer_of_just_the_bound_is_taken(ask: Ask) -> None:
    body = b'{"id": 1, "created_at": "2026-01-02T03:04:05Z", "balances": []}'
    options = Options(limits=replace(LIMITS, answer_bytes_max=len(body)))
    with misbehaving(answering(200, body)) as server:
        assert ask(server.url, users.get(1), options=options).id == 1


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"code": 5}', b"\xff\xfe", b'{"code": "x", "detail": {}}']
)
def test_a_problem_that_is_none_still_has_its_status(ask: Ask, body: bytes) -> None:
    with misbehaving(answering(422, body)) as server, pytest.raises(Problem) as raised:
        ask(server.url, a_charge(), options=QUICK)
    assert raised.value.status == 422


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"transaction": {}}', b"nonsense"])
def test_a_success_that_cannot_be_read_is_not_taken_for_one(ask: Ask, body: bytes) -> None:
    call = a_charge()
    with misbehaving(answering(200, body)) as server, pytest.raises(AnswerUnreadable) as raised:
        ask(server.url, call, options=QUICK)
    assert raised.value.idempotency_key == call.key
    assert len(server.got) == 1


def test_a_redirect_is_not_followed(ask: Ask) -> None:
    with misbehaving(OK) as elsewhere:
        away = answering(307, b"", {"Location": f"{elsewhere.url}/charge"})
        with misbehaving(away) as server, pytest.raises(AnswerUnreadable, match="307"):
            ask(server.url, a_charge(), options=QUICK)
    assert elsewhere.got == []


def test_a_connection_is_used_again(ask: Ask) -> None:
    user = answering(200, USER)
    with misbehaving(user, refusing(404, "user-not-found"), user) as server:
        with pytest.raises(Problem):
            ask(server.url, users.get(1), users.get(2))
        assert server.connections == 1
        ask(server.url, users.get(1))
    assert server.connections == 2


def test_a_connection_that_was_closed_meanwhile_costs_nothing(ask: Ask) -> None:
    closing = answering(200, USER, {"Connection": "close"})
    with misbehaving(closing, closing) as server:
        ask(server.url, users.create(1), users.create(1), options=QUICK)
    assert (len(server.got), server.connections) == (2, 2)


def test_who_calls_and_for_whom_is_sent_with_every_try(ask: Ask) -> None:
    options = replace(QUICK, request_id=iter(["ours-1", "ours-2"]).__next__)
    with misbehaving(hanging_up, OK, OK) as server:
        ask(f"{server.url}/pay/", a_charge(), a_charge(), options=options)
    assert [got.headers["x-request-id"] for got in server.got] == ["ours-1", "ours-1", "ours-2"]
    assert {got.headers["x-api-key"] for got in server.got} == {API_KEY}
    assert {got.target for got in server.got} == {"/pay/charge"}
    assert {got.headers["user-agent"].split("/")[0] for got in server.got} == {"picopay-python"}
    assert not any("x-admin-secret" in got.headers for got in server.got)
