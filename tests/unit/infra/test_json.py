"""JSON keeps every digit, and what is not plain JSON is refused with a reason."""

import contextlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from picopay.infra.ids import new_id
from picopay.infra.json import Json, decode, dump, parse
from picopay.kernel.errors import Invalid


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"0.1", "0.1"),
        (b"100.000000000000000001", "100.000000000000000001"),
        (b"19.990", "19.990"),
        (b"1e2", "1E+2"),
        (b"1e400", "1E+400"),
        (b"1e-400", "1E-400"),
        (b"-0.0", "-0.0"),
        (b"123456789012345.67", "123456789012345.67"),
        (b"0." + b"3" * 5000, "0." + "3" * 5000),
    ],
)
def test_fractions_keep_their_digits(body: bytes, value: str) -> None:
    decoded = decode(body)
    assert isinstance(decoded, Decimal)
    assert str(decoded) == value


def test_whole_numbers_are_integers_of_any_size() -> None:
    assert decode(b"[1, -0, 123456789012345678901234567890]") == [
        1,
        0,
        123456789012345678901234567890,
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"[1,]",
        b"1 2",
        b"01",
        b"'a'",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b'{"amount": NaN}',
        b"1e99999999999999999999",
        b"1e-99999999999999999999",
        b"9" * 5000,
        b'{"amount": 1, "amount": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 300 + b"]" * 300,
        b"\xff",
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'"\x00"',
        b'{"a":\x00}',
        b"\xef\xbb\xbf1",
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_what_is_not_plain_json_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        decode(body)
    assert refused.value.code == "validation"
    errors: Any = refused.value.fields["errors"]
    (error,) = errors
    assert error["field"] == "body"
    assert error["message"]
    assert len(error["message"]) < 200


def test_ordinary_nesting_is_fine() -> None:
    value: Any = decode(b"[" * 100 + b"]" * 100)
    depth = 0
    while value:
        (value,) = value
        depth += 1
    assert depth == 99


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=10,
)


@given(plain)
def test_plain_values_are_read_back(value: object) -> None:
    assert decode(json.dumps(value).encode()) == value


@given(st.binary(max_size=40))
def test_any_bytes_are_a_value_or_are_refused(body: bytes) -> None:
    with contextlib.suppress(Invalid):
        assert decode(body) == json.loads(body, parse_float=Decimal)


class Body(BaseModel):
    id: int
    tags: list[int] = []


def test_a_body_becomes_its_model() -> None:
    assert parse(b'{"id": 7, "tags": [1]}', Body) == Body(id=7, tags=[1])


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"[]", ["body"]),
        (b"null", ["body"]),
        (b"{}", ["id"]),
        (b'{"id": "x", "tags": [1, "y"]}', ["id", "tags.1"]),
    ],
)
def test_every_wrong_field_is_named(body: bytes, fields: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        parse(body, Body)
    errors: Any = refused.value.fields["errors"]
    assert [error["field"] for error in errors] == fields


def test_the_offending_input_is_not_repeated() -> None:
    with pytest.raises(Invalid) as refused:
        parse(b'{"id": "hunter2"}', Body)
    assert "hunter2" not in str(refused.value.fields)


@dataclass(frozen=True, slots=True)
class Answer:
    id: UUID
    amount: Decimal
    at: datetime
    note: str | None = None


def test_money_keeps_its_decimals_and_times_are_utc() -> None:
    answer = Answer(UUID(int=1), Decimal("900.00"), datetime(2026, 1, 2, 3, tzinfo=UTC))
    assert dump(answer) == (
        b'{"id":"00000000-0000-0000-0000-000000000001","amount":900.00,'
        b'"at":"2026-01-02T03:00:00Z","note":null}'
    )


@pytest.mark.parametrize("text", ["0.00", "900", "1.234", "-0.05", "92233720368547758.07"])
def test_decimals_are_written_digit_by_digit(text: str) -> None:
    assert dump([Decimal(text)]) == f"[{text}]".encode()


def test_a_huge_decimal_is_written_without_an_exponent() -> None:
    assert dump(Decimal("1E+5")) == b"100000"


def test_our_own_ids_are_written_as_uuids() -> None:
    made = new_id()
    assert dump(made) == f'"{made}"'.encode()
    assert made.version == 7


def test_ids_made_later_sort_later() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000


def test_what_has_no_json_form_is_our_bug() -> None:
    with pytest.raises(TypeError):
        dump(object())


def test_ready_bytes_are_sent_untouched() -> None:
    response = Json(b'{"a":1.10}')
    assert response.body == b'{"a":1.10}'
    assert response.headers["content-type"] == "application/json"
