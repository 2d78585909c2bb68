"""Money is exact: what is asked for is what is moved, or it is refused with a reason."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from picopay.kernel.errors import Invalid
from picopay.kernel.money import (
    AMOUNT_MINOR_MAX,
    EXPONENTS,
    AmountInvalid,
    CurrencyUnknown,
    Money,
)

CURRENCIES = st.sampled_from(sorted(EXPONENTS))


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("0.01", "USD", 1),
        ("19.99", "USD", 1999),
        ("0.30", "USD", 30),
        ("1e2", "USD", 10_000),
        ("1E+2", "JPY", 100),
        ("5.00", "JPY", 5),
        ("1.5000000000000000000000000000000000000000", "USD", 150),
        ("1.234", "KWD", 1234),
        ("0.001", "KWD", 1),
        ("1.2345", "CLF", 12_345),
        ("1234567890123.45", "USD", 123_456_789_012_345),
        ("9999999999999.99", "USD", 999_999_999_999_999),
        ("10000000000000", "USD", AMOUNT_MINOR_MAX),
        ("1000000000000000", "JPY", AMOUNT_MINOR_MAX),
        ("1000000000000", "KWD", AMOUNT_MINOR_MAX),
    ],
)
def test_decimals_are_parsed_exactly(amount: str, currency: str, minor: int) -> None:
    assert Money.parse(Decimal(amount), currency) == Money(minor, currency)


def test_a_tenth_and_two_tenths_are_three_tenths() -> None:
    tenth, two_tenths = (Money.parse(Decimal(a), "USD") for a in ("0.1", "0.2"))
    assert Money(tenth.minor + two_tenths.minor, "USD").major == Decimal("0.30")


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [(100, "USD", 10_000), (100, "JPY", 100), (7, "KWD", 7000), (10**13, "USD", AMOUNT_MINOR_MAX)],
)
def test_whole_numbers_are_major_units(amount: int, currency: str, minor: int) -> None:
    assert Money.parse(amount, currency) == Money(minor, currency)


# In the order of precedence: the currency, finite, too large, too fine, not positive.
@pytest.mark.parametrize(
    ("amount", "currency", "why"),
    [
        ("NaN", "XXX", "'XXX' is not an ISO 4217"),
        ("1", "usd", "'usd' is not an ISO 4217 currency code in use: USD is"),
        ("NaN", "USD", "must be a finite number"),
        ("sNaN", "USD", "must be a finite number"),
        ("Infinity", "USD", "must be a finite number"),
        ("-Infinity", "USD", "must be a finite number"),
        ("1e400", "USD", "must not exceed 1000000000000000 minor units"),
        ("10000000000000.01", "USD", "must not exceed"),
        ("1000000000000001", "JPY", "must not exceed"),
        ("1000000000000.001", "KWD", "must not exceed"),
        ("100.000000000000000001", "USD", "has more than the 2 decimals of USD"),
        ("1e-400", "USD", "has more than the 2 decimals of USD"),
        ("0.001", "USD", "has more than the 2 decimals of USD"),
        ("-0.001", "USD", "has more than the 2 decimals of USD"),
        ("0.5", "JPY", "has more than the 0 decimals of JPY"),
        ("0.0001", "KWD", "has more than the 3 decimals of KWD"),
        ("0.00001", "CLF", "has more than the 4 decimals of CLF"),
        ("0", "USD", "must be greater than zero"),
        ("-0", "USD", "must be greater than zero"),
        ("0.000", "USD", "must be greater than zero"),
        ("0e400", "USD", "must be greater than zero"),
        ("-1", "USD", "must be greater than zero"),
    ],
)
def test_what_is_no_amount_is_refused_with_its_reason(amount: str, currency: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        Money.parse(Decimal(amount), currency)


@pytest.mark.parametrize("amount", [0, -1, 10**13 + 1, 10**500, -(10**500)])
def test_whole_numbers_out_of_range_are_refused(amount: int) -> None:
    with pytest.raises(AmountInvalid):
        Money.parse(amount, "USD")


@pytest.mark.parametrize(
    "currency", ["", "usd", "Usd", "US", "USDT", "XAU", "XXX", "DEM", "\uff35SD"]
)
def test_only_iso_codes_of_money_in_use_are_currencies(currency: str) -> None:
    with pytest.raises(CurrencyUnknown) as refused:
        Money.parse(1, currency)
    assert refused.value.code == "validation"
    assert refused.value.fields["errors"] == [{"field": "currency", "message": str(refused.value)}]


def test_a_refused_amount_names_its_field() -> None:
    with pytest.raises(AmountInvalid) as refused:
        Money.parse(0, "USD")
    message = "must be greater than zero"
    assert refused.value.fields["errors"] == [{"field": "amount", "message": message}]


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (90_000, "USD", "900.00"),
        (1, "USD", "0.01"),
        (0, "USD", "0.00"),
        (-5, "USD", "-0.05"),
        (900, "JPY", "900"),
        (1234, "KWD", "1.234"),
        (12_345, "CLF", "1.2345"),
        (2**63 - 1, "USD", "92233720368547758.07"),
    ],
)
def test_money_is_shown_with_its_currencys_decimals(minor: int, currency: str, text: str) -> None:
    assert format(Money(minor, currency).major, "f") == text


@given(st.integers(1, AMOUNT_MINOR_MAX), CURRENCIES)
@example(AMOUNT_MINOR_MAX, "CLF")
def test_what_is_shown_is_parsed_back(minor: int, currency: str) -> None:
    money = Money(minor, currency)
    text = format(money.major, "f")
    assert Money.parse(Decimal(text), currency) == money
    assert len(text.partition(".")[2]) == EXPONENTS[currency]


@given(st.decimals(allow_nan=True, allow_infinity=True), CURRENCIES)
def test_any_decimal_is_taken_exactly_or_refused(amount: Decimal, currency: str) -> None:
    try:
        money = Money.parse(amount, currency)
    except AmountInvalid:
        return
    assert money.major == amount
    assert 0 < money.minor <= AMOUNT_MINOR_MAX


@given(st.integers(-(10**16), 10**16), CURRENCIES)
def test_whole_numbers_and_decimals_agree(amount: int, currency: str) -> None:
    def parsed(value: int | Decimal) -> Money | None:
        try:
            return Money.parse(value, currency)
        except AmountInvalid:
            return None

    assert parsed(amount) == parsed(Decimal(amount))
