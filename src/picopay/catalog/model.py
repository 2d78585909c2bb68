"""Products, what their stock is, and each move that has made it so."""

from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from picopay.kernel.money import Money

NAME_LENGTH_MAX: Final = 200
PRICE_MINOR_MAX: Final = 10**12 - 1  # NUMERIC(12,2), in cents
STOCK_MAX: Final = 2**31 - 1  # that is set; what comes back may make it more


class MoveReason(StrEnum):
    OPENED = "opened"  # with the product
    ADJUSTED = "adjusted"  # by an administrator
    RESERVED = "reserved"  # by an order
    RETURNED = "returned"  # by the same order


class SortBy(StrEnum):
    CREATED_AT = "created_at"
    NAME = "name"
    PRICE = "price"


class Product(NamedTuple):
    """`version` counts the moves of its stock."""

    id: UUID
    name: str
    price: Money
    stock: int
    is_active: bool
    archived_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def is_for_sale(self) -> bool:
        return self.is_active and self.archived_at is None


class NewProduct(NamedTuple):
    """A product about to be made; its `id` is ours, minted before anything is written."""

    id: UUID
    name: str
    price: Money
    stock: int
    is_active: bool


class Change(NamedTuple):
    """What an administrator sets; None leaves it as it is."""

    name: str | None = None
    price: Money | None = None
    stock: int | None = None
    is_active: bool | None = None


class StockMove(NamedTuple):
    """A signed change of a product's stock. Only an order's have an `order_id`."""

    product_id: UUID
    delta: int
    reason: MoveReason
    order_id: UUID | None = None


class Stock(NamedTuple):
    """How many there are, and after how many moves."""

    quantity: int
    version: int


class Recorded(NamedTuple):
    """A move with its place in the product's history."""

    id: UUID
    move: StockMove
    after: Stock


class Locked(NamedTuple):
    """Products by id: `products` are ours until the transaction ends, `busy` are somebody else's.

    Ids in neither belong to no product.
    """

    products: dict[UUID, Product]
    busy: set[UUID]


class Position(NamedTuple):
    """Where a page ended: the sort key and the id of its last product."""

    key: datetime | str | int
    id: UUID


class Listing(NamedTuple):
    """Which products to list, never archived ones, and in which order."""

    q: str | None = None
    is_active: bool = True
    sort_by: SortBy = SortBy.CREATED_AT
    descending: bool = True
    after: Position | None = None
