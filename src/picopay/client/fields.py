"""JSON, exactly: every number keeps its digits, and what is not as promised is named."""

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Final, NoReturn, cast
from uuid import UUID

from picopay.kernel.money import EXPONENTS, Money

# Exact, or refused; so is what would take long to write out. 64-bit totals have 19 digits.
_EXACT: Final = Context(prec=60, Emax=60, traps=[Inexact, InvalidOperation, Overflow])


class Malformed(Exception):
    """Not what the API promises; says which field."""


def decode(body: bytes) -> object:
    """Any JSON value; fractions come as `Decimal`. Raises `Malformed`."""
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise Malformed(f"no JSON: {type(error).__name__}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def exact(value: object) -> str:
    """As it is sent: in a string, which nobody on the way rounds."""
    if isinstance(value, float) or not isinstance(value, (Decimal, int, str)):
        raise TypeError(f"an amount is a Decimal, an int or a str, not a {type(value).__name__}")
    return str(value)


class Fields:
    """A JSON object that is read field by field. Every reader raises `Malformed`."""

    def __init__(self, value: object, place: str = "") -> None:
        if not isinstance(value, dict):
            raise Malformed(f"{place or 'the body'} is no object")
        self._values = cast("dict[str, object]", value)
        self._place = place

    def get(self, name: str) -> object:
        """The field as it came, or None."""
        return self._values.get(name)

    def besides(self, *names: str) -> Mapping[str, object]:
        """All fields but these."""
        return {name: value for name, value in self._values.items() if name not in names}

    def text(self, name: str) -> str:
        value = self.get(name)
        return value if isinstance(value, str) else self._wrong(name, "text")

    def text_or_none(self, name: str) -> str | None:
        return None if self.get(name) is None else self.text(name)

    def whole(self, name: str) -> int:
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            self._wrong(name, "a whole number")
        return value

    def flag(self, name: str) -> bool:
        value = self.get(name)
        return value if isinstance(value, bool) else self._wrong(name, "true or false")

    def number(self, name: str) -> Decimal:
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
            self._wrong(name, "a number")
        return Decimal(value)

    def money(self, name: str, currency: str | None = None) -> Money:
        """Of the object's own `currency`, unless another is given."""
        code = currency or self.text("currency")
        if code not in EXPONENTS:
            self._wrong("currency", "a currency that is known here")
        try:
            minor = self.number(name).scaleb(EXPONENTS[code], _EXACT)
            return Money(int(minor.to_integral_exact(context=_EXACT)), code)
        except (Inexact, InvalidOperation, Overflow):
            return self._wrong(name, f"an amount of {code}")

    def id(self, name: str) -> UUID:
        try:
            return UUID(self.text(name))
        except ValueError:
            return self._wrong(name, "a UUID")

    def moment(self, name: str) -> datetime:
        try:
            moment = datetime.fromisoformat(self.text(name))
        except ValueError:
            return self._wrong(name, "a time")
        return moment if moment.tzinfo else self._wrong(name, "a time with its offset")

    def moment_or_none(self, name: str) -> datetime | None:
        return None if self.get(name) is None else self.moment(name)

    def one(self, name: str) -> "Fields":
        return Fields(self.get(name), self._at(name))

    def each(self, name: str) -> list["Fields"]:
        return each(self.get(name), self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name

    def _wrong(self, name: str, expected: str) -> NoReturn:
        raise Malformed(f"{self._at(name)} is not {expected}")


def each(value: object, place: str = "the body") -> list[Fields]:
    """The objects of a list."""
    if not isinstance(value, list):
        raise Malformed(f"{place} is no list")
    items = cast("list[object]", value)
    return [Fields(item, f"{place}[{number}]") for number, item in enumerate(items)]
