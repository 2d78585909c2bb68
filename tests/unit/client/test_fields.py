"""JSON that keeps every digit, and is refused by name where it is not as promised."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay.client.fields import Fields, Malformed, decode, each, encode, exact
from picopay.infra.json import dump
from picopay.kernel.money import EXPONENTS, Money


@given(st.integers(-(2**70), 2**70), st.sampled_from(sorted(EXPONENTS)))
def test_money_is_read_as_the_server_writes_it(minor: int, currency: str) -> None:
    money = Money(minor, currency)
    read = Fields(decode(dump({"amount": money, "currency": currency}))).money("amount")
    assert read == money


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("1.001", "USD"),
        ("0.1", "JPY"),
        ("1e-30", "USD"),
        ("1e400", "USD"),
        ("1e999999999", "USD"),
        ("1", "XXX"),
    ],
)
def test_money_that_the_currency_cannot_express_is_refused(text: str, currency: str) -> None:
    fields = Fields(decode(f'{{"amount": {text}, "currency": "{currency}"}}'.encode()))
    with pytest.raises(Malformed):
        fields.money("amount")


def test_numbers_keep_their_digits() -> None:
    value = decode(b'{"a": 100.000000000000000001, "b": 900.00, "c": 12345678901234567890}')
    assert value == {
        "a": Decimal("100.000000000000000001"),
        "b": Decimal("900.00"),
        "c": 12345678901234567890,
    }
    assert str(Fields(value).number("b")) == "900.00"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"a": NaN}', b'{"a": Infinity}', b"\xff", b"[" * 100_000, b"9" * 5_000,
     b'{"a": 1e99999999999999999999}'],
)  # fmt: skip
def test_what_is_no_json_is_malformed_and_nothing_else(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode(body)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_body_raises_anything_else(body: bytes) -> None:
    try:
        decode(body)
    except Malformed:
        return


GOOD: dict[str, object] = {
    "text": "a", "whole": 1, "flag": True, "number": 1.5,
    "id": "0198c6a2-0000-7000-8000-000000000000", "moment": "2026-01-02T03:04:05Z", "one": {},
    "each": [{}],
}  # fmt: skip
READERS: dict[str, Callable[[Fields, str], object]] = {
    "text": Fields.text,
    "whole": Fields.whole,
    "flag": Fields.flag,
    "number": Fields.number,
    "id": Fields.id,
    "moment": Fields.moment,
    "one": Fields.one,
    "each": Fields.each,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("wrong", [None, [1], "a b", True, -1, {"a": 1}], ids=str)
def test_a_field_of_another_kind_is_named(name: str, wrong: object) -> None:
    READERS[name](Fields(decode(json.dumps(GOOD).encode())), name)
    if (name, type(wrong)) in {("text", str), ("whole", int), ("flag", bool), ("number", int),
                               ("one", dict)}:  # fmt: skip
        return
    with pytest.raises(Malformed, match=f"outer.{name}"):
        READERS[name](Fields(decode(json.dumps({**GOOD, name: wrong}).encode()), "outer"), name)


def test_what_may_be_missing_is_none() -> None:
    fields = Fields({"there": "a", "at": "2026-01-02T03:04:05.000006Z", "null": None})
    assert fields.text_or_none("there") == "a"
    assert fields.text_or_none("null") is None
    assert fields.moment_or_none("absent") is None
    assert fields.moment_or_none("at") == datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_a_time_without_its_offset_is_no_time() -> None:
    with pytest.raises(Malformed, match="offset"):
        Fields({"at": "2026-01-02T03:04:05"}).moment("at")


def test_a_place_in_a_list_is_named() -> None:
    with pytest.raises(Malformed, match=r"the body\[1\].a is not text"):
        [fields.text("a") for fields in each([{"a": "x"}, {"a": 1}])]
    with pytest.raises(Malformed, match="the body is no list"):
        each({})


@pytest.mark.parametrize(
    ("given_", "sent"), [(Decimal("19.90"), "19.90"), (100, "100"), ("0.01", "0.01")]
)
def test_amounts_are_sent_as_they_are(given_: Decimal | int | str, sent: str) -> None:
    assert exact(given_) == sent
    assert encode({"amount": exact(given_)}) == b'{"amount":"%b"}' % sent.encode()


@pytest.mark.parametrize("given_", [19.9, None, b"1"])
def test_a_float_is_no_amount(given_: object) -> None:
    with pytest.raises(TypeError):
        exact(given_)
