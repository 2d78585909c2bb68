"""What a price may be, what moves do to stock, and what a change means: pure."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from uuid import UUID

from picopay.catalog.errors import PriceInvalid
from picopay.catalog.model import (
    PRICE_MINOR_MAX,
    STOCK_MAX,
    Change,
    MoveReason,
    NewProduct,
    Product,
    Recorded,
    Stock,
    StockMove,
)
from picopay.kernel.money import AmountInvalid, Money


def price(amount: Decimal | int, currency: str) -> Money:
    """The exact price, in major units. Raises `PriceInvalid`."""
    try:
        money = Money.parse_price(amount, currency)
    except AmountInvalid as error:
        raise PriceInvalid(error.why) from None
    if money.minor > PRICE_MINOR_MAX:
        raise PriceInvalid(f"must not exceed {Money(PRICE_MINOR_MAX, currency).text}")
    return money


def opened(products: Sequence[NewProduct]) -> list[StockMove]:
    """A stock of nothing needs no move."""
    return [StockMove(p.id, p.stock, MoveReason.OPENED) for p in products if p.stock]


def adjusted(product: Product, change: Change) -> list[StockMove]:
    """The difference to what is wanted, if there is any."""
    delta = 0 if change.stock is None else change.stock - product.stock
    return [StockMove(product.id, delta, MoveReason.ADJUSTED)] if delta else []


def changed(product: Product, change: Change) -> Product:
    """The product with all but its stock as wanted."""
    return product._replace(
        name=product.name if change.name is None else change.name,
        price=change.price or product.price,
        is_active=product.is_active if change.is_active is None else change.is_active,
    )


def differences(before: Product, after: Product) -> dict[str, tuple[object, object]]:
    """What an administrator has changed: (before, after) by name."""
    pairs: dict[str, tuple[object, object]] = {
        "name": (before.name, after.name),
        "price": (before.price.text, after.price.text),
        "stock": (before.stock, after.stock),
        "is_active": (before.is_active, after.is_active),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def record(
    before: Mapping[UUID, Stock], moves: Sequence[StockMove], ids: Sequence[UUID]
) -> list[Recorded]:
    """The moves in order, each with the stock and the version after it; `ids` will be theirs.

    Whoever takes stock has looked before, under the lock.
    """
    stocks = dict(before)
    recorded: list[Recorded] = []
    for move, move_id in zip(moves, ids, strict=True):
        quantity, version = stocks[move.product_id]
        assert move.delta != 0, "a move moves something"
        left = quantity + move.delta
        assert left >= 0, "more was taken than there is"
        assert left <= STOCK_MAX or move.order_id is not None, "more was set than can be"
        after = stocks[move.product_id] = Stock(left, version + 1)
        recorded.append(Recorded(move_id, move, after))
    return recorded


def lasts(recorded: Sequence[Recorded]) -> dict[UUID, Stock]:
    """What each product that was moved has in the end, by id in lock order."""
    ends = {item.move.product_id: item.after for item in recorded}
    return {product_id: ends[product_id] for product_id in sorted(ends)}
