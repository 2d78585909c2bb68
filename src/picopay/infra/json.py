"""JSON at the edge: numbers keep every digit coming in, and money keeps its decimals going out."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import jiter
import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from picopay.infra.routing import exact_number
from picopay.kernel.errors import Invalid
from picopay.kernel.money import Money

ModelT = TypeVar("ModelT", bound=BaseModel)

_MONEY: Final = frozenset({"amount", "currency"})


def decode(body: bytes) -> object:
    """Any JSON value; fractions come as `Decimal`. Raises `Invalid` for what is not plain JSON.

    NaN, infinities, repeated members, lone surrogates and nesting deeper than 200 are refused.
    """
    try:
        return jiter.from_json(
            body, float_mode="decimal", allow_inf_nan=False, catch_duplicate_keys=True
        )
    except ValueError as error:
        reason = str(error)
        if reason.startswith("Internal error"):  # an exponent that no decimal can hold
            reason = "number out of range"
        raise Invalid("the body is not valid JSON", ("body", reason)) from None


async def body_of(request: Request) -> bytes:
    """The whole body. Starlette's own way takes a detour through an asynchronous generator."""
    body = b""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


def parse(body: bytes, model: type[ModelT], context: object = None) -> ModelT:
    """The body as `model`; raises `Invalid` naming every field that is wrong.

    `context` is what the model's own validators need to know of the shop.
    """
    return validate(decode(body), model, context=context)


def validate(value: object, model: type[ModelT], *, context: object = None) -> ModelT:
    try:
        return model.model_validate(value, context=context)
    except ValidationError as error:
        wrong = _field_errors(error)
        raise Invalid.of(*wrong, *_money_errors(value, model, wrong)) from None


def _field_errors(error: ValidationError) -> list[tuple[str, str]]:
    """(dotted field, message) pairs; the offending input itself is never repeated."""
    return [
        (".".join(map(str, item["loc"])) or "body", _told(item["type"], item["msg"]))
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _told(kind: str, message: str) -> str:
    """The library would name a class of ours."""
    return "must be an object" if kind == "model_type" else message.removeprefix("Value error, ")


def _money_errors(
    value: object, model: type[BaseModel], wrong: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Whether an amount is one of its currency is asked of valid bodies only, to be quick.

    Of others it is asked here, so that their sender learns of all that is wrong at once.
    """
    named = {field for field, _ in wrong}
    if not model.model_fields.keys() >= _MONEY or not isinstance(value, Mapping):
        return []
    told = {"currency": "USD", **cast("Mapping[str, Any]", value)}
    if "amount" not in named and "amount" not in told:
        return []
    amount = 1 if "amount" in named else exact_number(told["amount"])
    try:
        Money.parse(amount, "" if "currency" in named else told["currency"])
    except Invalid as refused:
        return [error for error in refused.errors if error[0] not in named]
    return []


def _other(value: object) -> orjson.Fragment | str:
    if isinstance(value, Money):
        return orjson.Fragment(value.text)
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, UUID):  # the driver's own kind
        return str(value)
    raise TypeError(type(value).__name__)


def dump(value: object) -> bytes:
    """UTF-8 JSON of dataclasses, UUIDs, UTC times (…Z), money and decimals, digits untouched."""
    return orjson.dumps(value, default=_other, option=orjson.OPT_UTC_Z)


class Json(Response):
    """A response whose content is already JSON bytes, or any value that `dump` takes.

    It makes its few headers itself: Starlette's way, good for any response, costs five times that.
    """

    media_type = "application/json"

    def __init__(
        self, content: object, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status_code = status_code
        self.background = None
        self.body = content if isinstance(content, bytes) else dump(content)
        self.raw_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self.body)),
        ]
        for name, value in (headers or {}).items():
            self.raw_headers.append((name.lower().encode(), value.encode()))
