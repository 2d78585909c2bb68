"""What an Idempotency-Key may be."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay.idempotency.errors import KeyInvalid, KeyReused
from picopay.idempotency.rules import differing, parse_key, parse_uuid_key

KEY = "0198c0de-0000-7000-8000-00000000abcd"


@pytest.mark.parametrize(
    "spelling",
    [
        KEY,
        KEY.upper(),
        KEY.replace("-", ""),
        f"{{{KEY}}}",
        f"urn:uuid:{KEY}",
        f"URN:UUID:{KEY.upper()}",
    ],
)
def test_every_spelling_of_a_uuid_is_one_key(spelling: str) -> None:
    assert parse_uuid_key([spelling.encode()]) == KEY
    assert parse_key([spelling.encode()]) == KEY


def test_no_header_is_no_key() -> None:
    assert parse_uuid_key([]) is None
    assert parse_key([]) is None


@pytest.mark.parametrize(
    "values",
    [
        [KEY.encode(), KEY.encode()],
        [b""],
        [b" "],
        [b"not-a-uuid"],
        [KEY[:-1].encode()],
        [KEY.encode() + b"0"],
        [KEY.replace("c", "g").encode()],
        [KEY.encode() + b"\x00"],
        [b"\xff" * 16],
        ["٣".encode() * 32],
    ],
)
def test_anything_else_is_no_uuid_key(values: list[bytes]) -> None:
    with pytest.raises(KeyInvalid) as refused:
        parse_uuid_key(values)
    assert refused.value.code == "idempotency-key-invalid"


@pytest.mark.parametrize("text", ["order-1", "!", "~" * 255, "not-a-uuid"])
def test_a_free_key_is_kept_as_it_came(text: str) -> None:
    assert parse_key([text.encode()]) == text


@pytest.mark.parametrize(
    "values",
    [
        [b"a", b"a"],
        [b""],
        [b" "],
        [b"a b"],
        [b"~" * 256],
        [b"a\n"],
        [b"\x00"],
        [b"\xe9"],
        [b"\x7f"],
    ],
)
def test_a_free_key_is_255_visible_ascii_characters_at_most(values: list[bytes]) -> None:
    with pytest.raises(KeyInvalid):
        parse_key(values)


@given(st.uuids())
def test_normalising_a_key_twice_changes_nothing(key: UUID) -> None:
    assert parse_uuid_key([key.hex.upper().encode()]) == str(key)
    assert parse_uuid_key([str(key).encode()]) == str(key)


@given(st.lists(st.binary(max_size=300), max_size=3))
def test_any_header_is_a_key_or_is_refused(values: list[bytes]) -> None:
    for parse in (parse_uuid_key, parse_key):
        try:
            key = parse(values)
        except KeyInvalid:
            continue
        assert (key is None) == (values == [])


def test_differing_fields_are_named_in_order() -> None:
    assert differing(user_id=(1, 2), amount=(5, 5), currency=("USD", "JPY")) == [
        "user_id",
        "currency",
    ]
    assert differing(user_id=(1, 1)) == []


def test_a_reused_key_names_its_mismatches_sorted() -> None:
    refused = KeyReused(["user_id", "amount"])
    assert refused.fields == {"mismatched_fields": ["amount", "user_id"]}
    assert "another amount, user_id" in refused.detail
