"""Money: a whole number of a currency's smallest unit, parsed and printed exactly."""

from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import NamedTuple, Self

from iso4217 import Currency

from picopay.kernel.errors import Invalid
from picopay.kernel.tuples import new

# One amount may not pass this, so that sums of thousands of them still fit 64 bits.
AMOUNT_MINOR_MAX = 10**15

# ISO 4217's exponents, not CLDR's: the two differ for 13 currencies. Codes without an
# exponent (XAU, XDR, …) are not money that can be charged.
EXPONENTS: dict[str, int] = {
    currency.code: currency.exponent for currency in Currency if currency.exponent is not None
}

_QUANTA = {code: Decimal(1).scaleb(-exponent) for code, exponent in EXPONENTS.items()}
_SCALES = {code: Decimal(10) ** exponent for code, exponent in EXPONENTS.items()}
_FORMS = {code: (10**exponent, f"%d.%0{exponent}d") for code, exponent in EXPONENTS.items()}
_EXACT = Context(prec=40, traps=[Inexact, InvalidOperation])
_LARGEST = Decimal(AMOUNT_MINOR_MAX)  # as a decimal: an integer would be converted each time


class CurrencyUnknown(Invalid):
    """`others` are wrong besides, whatever the currency."""

    def __init__(self, currency: str, *others: tuple[str, str]) -> None:
        why = f"{currency!r} is not an ISO 4217 currency code in use"
        if currency.upper() in EXPONENTS:
            why += f": {currency.upper()} is"
        super().__init__(why, ("currency", why), *others)


class AmountInvalid(Invalid):
    def __init__(self, why: str) -> None:
        super().__init__(f"amount {why}", ("amount", why))
        self.why = why


class Money(NamedTuple):
    """An amount in minor units (cents, yen, fils) with its ISO 4217 currency."""

    minor: int
    currency: str

    @classmethod
    def parse(cls, amount: Decimal | int, currency: str) -> Self:
        """The exact amount, in major units, that a caller asks to move.

        Raises `CurrencyUnknown`, or `AmountInvalid` for what is not finite, not positive, finer
        than the currency's smallest unit or above `AMOUNT_MINOR_MAX`: never rounded.
        """
        minor = _minor(amount, currency)
        if minor <= 0:
            raise AmountInvalid("must be greater than zero")
        return new(cls, (minor, currency))

    @classmethod
    def parse_price(cls, amount: Decimal | int, currency: str) -> Self:
        """As `parse`, of what something costs: that may be nothing, and never less."""
        minor = _minor(amount, currency)
        if minor < 0:
            raise AmountInvalid("must not be negative")
        return cls(minor, currency)

    @property
    def text(self) -> str:
        """In major units with the currency's own decimals: 90000 USD cents are `900.00`."""
        return major_text(*self)

    @property
    def major(self) -> Decimal:
        return Decimal(self.text)


def major_text(minor: int, currency: str) -> str:
    """As `Money.text`, of an amount of which no `Money` was made."""
    scale, form = _FORMS[currency]
    if scale == 1:
        return str(minor)
    return form % divmod(minor, scale) if minor >= 0 else "-" + form % divmod(-minor, scale)


def _minor(amount: Decimal | int, currency: str) -> int:
    exponent = EXPONENTS.get(currency)
    if exponent is None:
        raise CurrencyUnknown(currency, *_wrong_anyhow(amount))
    minor = amount * 10**exponent if isinstance(amount, int) else _exact(amount, currency)
    if minor > AMOUNT_MINOR_MAX:
        raise AmountInvalid(f"must not exceed {AMOUNT_MINOR_MAX} minor units")
    return minor


def _wrong_anyhow(amount: Decimal | int) -> list[tuple[str, str]]:
    """What no currency could mend."""
    if isinstance(amount, Decimal) and not amount.is_finite():
        return [("amount", "must be a finite number")]
    if 0 < amount <= AMOUNT_MINOR_MAX:
        return []
    return [("amount", f"must be greater than zero and at most {AMOUNT_MINOR_MAX} minor units")]


def _exact(amount: Decimal, currency: str) -> int:
    if not amount.is_finite():
        raise AmountInvalid("must be a finite number")
    # Compared first: a huge exponent would otherwise be told as one decimal too many.
    if amount > _LARGEST:
        raise AmountInvalid(f"must not exceed {AMOUNT_MINOR_MAX} minor units")
    try:
        return int(amount.quantize(_QUANTA[currency], None, _EXACT) * _SCALES[currency])
    except (Inexact, InvalidOperation):
        why = f"has more than the {EXPONENTS[currency]} decimals of {currency}"
        raise AmountInvalid(why) from None
