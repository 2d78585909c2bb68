"""What products look like on the wire, and the cursors of their list."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, Final, cast
from uuid import UUID

import orjson
from pydantic import (
    BaseModel,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic.json_schema import SkipJsonSchema

from picopay.catalog import rules
from picopay.catalog.errors import PriceInvalid
from picopay.catalog.model import (
    NAME_LENGTH_MAX,
    PRICE_MINOR_MAX,
    STOCK_MAX,
    Change,
    Listing,
    NewProduct,
    Position,
    Product,
    SortBy,
)
from picopay.infra.ids import new_id
from picopay.infra.routing import MoneyOut, decode_cursor, encode_cursor, exact_number
from picopay.kernel.money import Money

# A cursor may hold a whole name, four bytes a character, in base 64.
CURSOR_LENGTH_MAX: Final = 2000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MICROSECONDS_MAX: Final = 2**52  # in the year 2112
_NO_NUL: Final = r"^[^\x00]*$"

NameIn = Annotated[
    str,
    Field(
        min_length=1,
        max_length=NAME_LENGTH_MAX,
        pattern=_NO_NUL,
        examples=["Laptop"],
        description="Need not be unique.",
    ),
]


def _priced(value: object, shop: ValidationInfo) -> Money:
    """The context is the shop's currency."""
    try:
        return rules.price(exact_number(value), cast("str", shop.context))
    except PriceInvalid as refused:
        raise ValueError(refused.why) from None


PriceIn = Annotated[
    Money,
    PlainValidator(_priced),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]{1,4})?$"},
            ],
            "description": "Major units of the shop's currency, at most as many decimals as it "
            "has, at most 9999999999.99.",
            "examples": [1500.0, "19.99"],
        }
    ),
]
StockIn = Annotated[int, Field(strict=True, ge=0, le=STOCK_MAX, examples=[10])]
FlagIn = Annotated[bool, Field(strict=True)]


class ProductIn(BaseModel):
    """A product that was not there before."""

    name: NameIn
    price: PriceIn
    stock: StockIn = 0
    is_active: Annotated[FlagIn, Field(description="Whether it can be ordered.")] = True

    def to_new(self) -> NewProduct:
        return NewProduct(new_id(), self.name, self.price, self.stock, self.is_active)


def _undefaulted(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _optional() -> Any:  # noqa: ANN401 - as pydantic's own Field
    return Field(default=None, json_schema_extra=_undefaulted)


class ProductPatch(BaseModel):
    """What is to be different; the rest stays as it is."""

    name: NameIn | SkipJsonSchema[None] = _optional()
    price: PriceIn | SkipJsonSchema[None] = _optional()
    stock: StockIn | SkipJsonSchema[None] = _optional()
    is_active: FlagIn | SkipJsonSchema[None] = _optional()

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        if value is None:
            raise ValueError("leave it out to keep it")
        return value

    def to_change(self) -> Change:
        return Change(self.name, self.price, self.stock, self.is_active)


@dataclass(frozen=True, slots=True)
class ProductOut:
    id: UUID
    name: str
    price: MoneyOut
    currency: str
    stock: int
    is_active: bool
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, p: Product) -> "ProductOut":
        currency = p.price.currency
        return cls(
            p.id, p.name, p.price, currency, p.stock, p.is_active, p.created_at, p.updated_at
        )


@dataclass(frozen=True, slots=True)
class AdminProductOut:
    id: UUID
    name: str
    price: MoneyOut
    currency: str
    stock: int
    is_active: bool
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None

    @classmethod
    def of(cls, p: Product) -> "AdminProductOut":
        return cls(
            p.id, p.name, p.price, p.price.currency, p.stock, p.is_active, p.created_at,
            p.updated_at, p.archived_at,
        )  # fmt: skip


class ProductQuery(BaseModel):
    """Which products to list, and in which order."""

    q: str | None = Field(
        None, max_length=NAME_LENGTH_MAX, pattern=_NO_NUL, description="Part of the name, any case."
    )
    is_active: bool = Field(default=True, description="Those that can be ordered, or cannot.")
    sort_by: SortBy = SortBy.CREATED_AT
    sort_desc: bool = True
    cursor: str | None = Field(
        None,
        max_length=CURSOR_LENGTH_MAX,
        description="From the `next` link of the page before; for the same order and filter.",
    )
    limit: int = Field(20, ge=1, le=100, description="Items at most.")

    def to_listing(self) -> Listing:
        """Raises `CursorInvalid`."""
        listing = Listing(self.q or None, self.is_active, self.sort_by, self.sort_desc)
        after = decode_cursor(self.cursor, lambda raw: _position(raw, listing))
        return listing._replace(after=after)


def cursor_after(product: Product, listing: Listing) -> str:
    """Where the page that ends with the product goes on."""
    keys: dict[SortBy, object] = {
        SortBy.CREATED_AT: (product.created_at - _EPOCH) // _MICROSECOND,
        SortBy.NAME: product.name,
        SortBy.PRICE: product.price.minor,
    }
    return encode_cursor([_mark(listing), keys[listing.sort_by], str(product.id)])


def _mark(listing: Listing) -> str:
    """Tells the order and filter that a cursor belongs to from others."""
    return blake2b(orjson.dumps(listing._replace(after=None)[:4]), digest_size=6).hexdigest()


def _position(raw: Any, listing: Listing) -> Position:  # noqa: ANN401 - JSON of anybody's
    mark, key, product_id = raw
    if mark != _mark(listing):
        raise ValueError("of another order or filter")
    return Position(_READERS[listing.sort_by](key), UUID(product_id))


def _whole(number: object, most: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most:
        raise ValueError("no key of ours")
    return number


def _moment(key: object) -> datetime:
    return _EPOCH + _whole(key, _MICROSECONDS_MAX) * _MICROSECOND


def _name(key: object) -> str:
    if not isinstance(key, str) or "\0" in key:
        raise ValueError("no key of ours")
    return key


def _price(key: object) -> int:
    return _whole(key, PRICE_MINOR_MAX)


_READERS: Final[dict[SortBy, Callable[[object], datetime | str | int]]] = {
    SortBy.CREATED_AT: _moment,
    SortBy.NAME: _name,
    SortBy.PRICE: _price,
}
