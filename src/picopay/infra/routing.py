"""How routes are declared: documented bodies, exact amounts, pages with cursors."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final, TypeVar, cast

import orjson
from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema
from starlette.convertors import Convertor, register_url_convertor

from picopay.kernel.errors import Refused
from picopay.kernel.money import Money

T = TypeVar("T")

_DIGITS: Final = re.compile("[0-9]{1,19}")
_NUMBER_TEXT: Final = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_AMOUNT_SCHEMA: Final = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": r"^[0-9]{1,16}(\.[0-9]{1,4})?$"},
    ],
    "description": "Major units, at most as many decimals as the currency has (ISO 4217).",
    "examples": [100.0, "19.99"],
}


class _Name(Convertor[str]):
    """`{owner:name}`: the rest of the path whatever it holds, slashes and a last newline too.

    Where something follows it, that route is to be declared first.
    """

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", _Name())


def exact_number(value: object) -> int | Decimal:
    if isinstance(value, str) and _NUMBER_TEXT.fullmatch(value):
        return Decimal(value)
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise ValueError("must be a number, or a string that holds one")  # noqa: TRY004 - pydantic's way
    return value


def _whole_number(value: object) -> int:
    """An integer, as itself or as digits: 1, "1"; not true, not 1.5."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")  # noqa: TRY004 - pydantic's way
    return value


USER_ID_MAX: Final = 2**63 - 1

AmountIn = Annotated[int | Decimal, PlainValidator(exact_number), WithJsonSchema(_AMOUNT_SCHEMA)]
UserIdIn = Annotated[
    int,
    PlainValidator(_whole_number),
    Field(ge=1, le=USER_ID_MAX),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": USER_ID_MAX, "examples": [1]}),
]
CurrencyIn = Annotated[
    str,
    Field(
        max_length=3,  # an unknown code is told back to its sender
        description="ISO 4217 code, upper case.",
        json_schema_extra={"pattern": "^[A-Z]{3}$", "examples": ["USD"]},
    ),
]
MoneyOut = Annotated[Money, WithJsonSchema({"type": "number", "examples": [900.00]})]


# The success of a route that takes an Idempotency-Key.
REPLAYABLE: Final[dict[str, Any]] = {
    "headers": {
        "Idempotent-Replayed": {
            "schema": {"type": "string", "enum": ["true"]},
            "description": "There when the key is known, and this is what it was answered first.",
        }
    }
}


def takes(model: type[BaseModel], *headers: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI of a route that parses `model` from the raw body itself."""
    schema = model.model_json_schema()
    whole = _inlined(schema, schema.pop("$defs", {}))
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": whole}}},
        "parameters": list(headers),
    }


def _inlined(schema: object, named: Mapping[str, object]) -> object:
    """With what it refers to by name in place: the document knows none of these names."""
    if isinstance(schema, list):
        return [_inlined(item, named) for item in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    fields = cast("dict[str, object]", schema)
    if isinstance(name := fields.get("$ref"), str):
        return _inlined(named[name.removeprefix("#/$defs/")], named)
    return {key: _inlined(value, named) for key, value in fields.items()}


def header(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": schema, "description": description}


class CursorInvalid(Refused):
    code = "cursor-invalid"


class Page(BaseModel):
    """What every `/v1` list takes."""

    limit: int = Field(20, ge=1, le=100, description="Items at most.")
    cursor: str | None = Field(None, max_length=500, description="`next_cursor` of the last page.")


def encode_cursor(position: object) -> str:
    return urlsafe_b64encode(orjson.dumps(position, default=str)).rstrip(b"=").decode()


def decode_cursor(cursor: str | None, read: Callable[[Any], T]) -> T | None:
    """What `encode_cursor` was given, through `read`. Raises `CursorInvalid`."""
    if cursor is None:
        return None
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        return read(orjson.loads(urlsafe_b64decode(padded)))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CursorInvalid("send next_cursor of the page before, unchanged") from None


def page_of(data: Sequence[object], *, has_more: bool, position: object) -> dict[str, object]:
    """The list's envelope; `position` is where the next page goes on."""
    next_cursor = encode_cursor(position) if has_more else None
    return {"data": data, "has_more": has_more, "next_cursor": next_cursor}


def limited_page(
    found: Sequence[T], limit: int, render: Callable[[T], object], position: Callable[[T], object]
) -> dict[str, object]:
    """The envelope of a list that was asked for one more than `limit`, to learn of more."""
    shown = found[:limit]
    last = position(shown[-1]) if shown else None
    data = [render(item) for item in shown]
    return page_of(data, has_more=len(found) > limit, position=last)
