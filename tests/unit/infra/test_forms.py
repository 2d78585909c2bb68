"""What was parsed once holds for requests alike but for key, id and body; and for no others."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from picopay.infra import doors
from picopay.infra.doors import line, refusal
from picopay.infra.forms import FORM_BYTES_MAX, FORMS_MAX, Forms, form_of

LINE = line("POST", "/charge")
BODY = b'{"user_id": 1}'
LENGTH = b"Content-Length: %d" % len(BODY)

NAMES = st.sampled_from([
    b"Host", b"Content-Length", b"Idempotency-Key", b"idempotency-key", b"IDEMPOTENCY-KEY",
    b"X-Request-ID", b"x-request-id", b"X-Request-Id", b"Connection", b"Transfer-Encoding",
    b"X-A", b"Expect", b"",
])  # fmt: skip
VALUES = st.sampled_from([
    b"", b"x", b"%d" % len(BODY), b"a-1", b"a b", b" a", b"chunked", b"keep-alive", b"close",
    b"x\r\nX-Request-ID: y", b"x\r\nTransfer-Encoding: chunked", b'"q"', b"\xc3\xa4", b"x\0",
])  # fmt: skip
HEADS = st.lists(
    st.tuples(NAMES, st.sampled_from([b": ", b":", b" : "]), VALUES).map(b"".join), max_size=5
)
BODIES = st.sampled_from(
    [BODY, BODY + b"\r\n", BODY + b"\n\n", BODY[:-1], BODY + b"P", b'{"user_id": 2}', b""]
)
MINTED = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def request(lines: list[bytes], body: bytes = BODY) -> bytes:
    return LINE + b"".join(one + b"\r\n" for one in lines) + b"\r\n" + body


def told(data: bytes) -> bytes | None:
    """The answer, whatever id was minted for it."""
    answer = refusal(data)
    return None if answer is None else MINTED.sub(b"minted", answer)


@given(st.lists(st.tuples(HEADS, BODIES, st.booleans()), min_size=2, max_size=6))
@example([
    ([b"X-Request-ID:  a"], BODY, True),
    ([b"X-Request-ID:  a"], BODY, True),
    ([b"X-Request-ID: a"], BODY, True),
    ([b"X-Request-ID: "], BODY, True),
])  # fmt: skip
@example([
    ([b"Idempotency-Key: a-1"], BODY, True),
    ([b"Idempotency-Key: a-2"], BODY, True),
    ([b"Idempotency-Key: a-3"], BODY, True),
    ([b"Idempotency-Key: a 4"], BODY, True),
    ([b"Idempotency-Key: a-"], BODY + b"P", True),
    ([b"Idempotency-Key: a", b""], BODY, True),
])  # fmt: skip
@example([
    ([b"X-Request-ID: ", b"Idempotency-Key: a"], BODY, True),
    ([b"X-Request-ID: x", b"Idempotency-Key: a"], BODY, True),
    ([b"X-Request-ID: x", b"Idempotency-Key: a"], BODY, True),
    ([b"X-Request-ID: y", b"Idempotency-Key: a"], BODY, True),
    ([b"X-Request-ID: ", b"Idempotency-Key: ab"], BODY, True),
    ([b"X-Request-ID: ", b"Idempotency-Key: ab"], BODY, True),
])  # fmt: skip
def test_who_comes_first_changes_no_answer(asked: list[tuple[list[bytes], bytes, bool]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        requests = [
            request([b"Host: x", LENGTH, *lines] if usual else lines, body)
            for lines, body, usual in asked
        ]
        alone: list[bytes | None] = []
        for data in requests:
            patch.setattr(doors, "_refused", Forms())
            alone.append(told(data))
        patch.setattr(doors, "_refused", Forms())
        assert [told(data) for data in requests] == alone


def test_a_request_like_one_before_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "_refused", Forms())
    head = [b"Host: x", LENGTH]
    assert refusal(request([*head, b"Idempotency-Key: a-1", b"X-Request-ID: one"]))
    monkeypatch.setattr(doors, "HttpRequestParser", None)
    answer = refusal(request([*head, b"Idempotency-Key: b-2", b"X-Request-ID: two"]))
    assert answer is not None
    assert b"x-request-id: two\r\n" in answer
    assert refusal(request([*head, b"Idempotency-Key: c", b"X-Request-ID: two"])[:-1]) is None


def test_a_request_like_the_latest_of_its_length_is_not_taken_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doors, "_refused", Forms())
    lines = [b"Host: x", LENGTH]
    for key in (b"a-1", b"b-2"):
        assert refusal(request([*lines, b"Idempotency-Key: " + key]))
    monkeypatch.setattr(doors, "form_of", None)
    first, second = (
        refusal(request([*lines, b"Idempotency-Key: c-3"], body)) or b""
        for body in (BODY, b'{"user_id": 2}')
    )
    assert first != second  # each has an id of its own
    assert MINTED.sub(b"", first) == MINTED.sub(b"", second)


def test_what_could_end_elsewhere_is_not_as_before() -> None:
    forms = Forms()
    lines = [b"Host: x", b"Idempotency-Key: a-1", LENGTH]
    known = request(lines)
    forms.note(known, len(known) - len(BODY))
    assert forms.is_as_before(known)
    assert forms.is_as_before(known.replace(b"a-1", b"b-2"))
    others = [
        known.replace(b"a-1", b"a 1"),
        known.replace(b"a-1", b"\r\n1"),
        known.replace(b"Host: x", b"Host: y"),
        known.replace(LENGTH, LENGTH.lower()),
        known.replace(b"a-1", b"a-") + b"P",
        known + b"P",
        known[:-1],
    ]
    assert [each for each in others if forms.is_as_before(each)] == []


def test_line_ends_behind_a_request_make_no_room_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doors, "_refused", Forms())
    lines = [b"Host: x", LENGTH]
    other = request([b"Host: x", b"Content-Length: 0"], b"")
    assert refusal(request(lines) + b"\n" * len(other)) is None
    assert refusal(request(lines) + other) is None
    assert refusal(request(lines)) is not None
    assert refusal(request(lines) + other) is None


def test_a_form_is_what_is_left_without_key_and_id() -> None:
    head = b"POST / HTTP/1.1\r\nIdempotency-Key: a-1\r\nX-Request-ID: one\r\nHost: x\r\n\r\n"
    form, request_id = form_of(head)
    assert form == b"POST / HTTP/1.1\r\nIdempotency-Key: \r\nX-Request-ID: \r\nHost: x\r\n\r\n"
    assert request_id == b"one"


def test_forms_are_bounded_in_number_and_size() -> None:
    forms = Forms()
    forms.add(b"x" * (FORM_BYTES_MAX + 1), 1)
    assert forms.body_bytes(b"x" * (FORM_BYTES_MAX + 1)) is None
    for number in range(FORMS_MAX):
        forms.add(b"%d" % number, number)
    assert forms.body_bytes(b"1") == 1
    forms.add(b"one more", 0)
    assert (forms.body_bytes(b"1"), forms.body_bytes(b"one more")) == (None, 0)
