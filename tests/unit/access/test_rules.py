"""API keys: told apart from noise without asking anybody, and stored as digests."""

import hashlib
import hmac
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay.access.rules import SECRET_BYTES, SHOWN_CHARS, digest, mint, well_formed

secrets = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
BASE62 = string.digits + string.ascii_letters
KEY = mint(bytes(range(SECRET_BYTES)), live=True)


@given(secrets, st.booleans())
def test_a_minted_key_is_well_formed(secret: bytes, live: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    key = mint(secret, live=live)
    assert key.startswith("pk_live_" if live else "pk_test_")
    assert len(key) == 8 + 30 + 6
    assert set(key[8:]) <= set(BASE62)
    assert well_formed(key)


@given(secrets, secrets)
def test_other_chance_makes_another_key(one: bytes, other: bytes) -> None:
    same = int.from_bytes(one, "big") % 62**30 == int.from_bytes(other, "big") % 62**30
    assert (mint(one, live=True) == mint(other, live=True)) is same


@given(st.integers(0, len(KEY) - 1), st.sampled_from(BASE62))
def test_one_wrong_character_is_noticed(position: int, char: str) -> None:
    typed = KEY[:position] + char + KEY[position + 1 :]
    assert well_formed(typed) is (typed == KEY)


@given(st.integers(8, len(KEY) - 2))
def test_two_swapped_characters_are_noticed(i: int) -> None:
    typed = KEY[:i] + KEY[i + 1] + KEY[i] + KEY[i + 2 :]
    assert well_formed(typed) is (typed == KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pk_live_",
        "pk_",
        KEY[:-1],
        KEY + "0",
        KEY.lower(),
        KEY.replace("live", "test"),
        " " + KEY,
        "sk" + KEY[2:],
        "é" * 44,
        "\x00" * 44,
    ],
)
def test_noise_is_no_key(text: str) -> None:
    assert not well_formed(text)


def test_what_is_shown_of_a_key_tells_four_of_its_characters() -> None:
    assert KEY[:SHOWN_CHARS] == KEY[:8] + KEY[8:12]


@given(st.binary(min_size=1, max_size=64), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_digest_is_the_hmac_under_the_pepper(pepper: bytes, text: str) -> None:
    expected = hmac.new(pepper, text.encode(), hashlib.sha256).digest()
    assert digest(pepper, text) == expected
    assert digest(pepper + b"1", text) != expected
    assert digest(pepper, text + "1") != expected
