"""What becomes of orders: pure, so that every sequence of events can be tried."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from unicodedata import category, normalize
from uuid import UUID

from picopay.catalog.model import MoveReason, Product, StockMove
from picopay.kernel.errors import Refused
from picopay.kernel.money import AMOUNT_MINOR_MAX, Money
from picopay.orders.errors import (
    InsufficientStock,
    OrderKeyReused,
    OrderTooLarge,
    PricedInAnotherCurrency,
    ProductUnavailable,
)
from picopay.orders.model import (
    OPEN,
    POLL_SECONDS,
    POLL_SECONDS_MAX,
    TRANSITIONS,
    Item,
    Line,
    Order,
    OrderCommand,
    Payment,
    PaymentStatus,
    Result,
    Status,
)
from picopay.users.errors import UserNotFound

_UNSEEN: Final = frozenset({"Cf", "Me", "Mn"})  # formats and marks, of what NFKC leaves


@dataclass(frozen=True, slots=True)
class Placed:
    """To be written: the items with their prices, the stock they take, and what it comes to."""

    command: OrderCommand
    items: tuple[Item, ...]
    moves: tuple[StockMove, ...]
    total_minor: int


@dataclass(frozen=True, slots=True)
class Made:
    """Written, and committed."""

    order: Order


@dataclass(frozen=True, slots=True)
class Declined:
    reason: Refused


@dataclass(frozen=True, slots=True)
class Replay:
    """The key has made this order before."""

    order: Order


@dataclass(frozen=True, slots=True)
class Busy:
    """A product is locked elsewhere: ask again soon."""


Decision = Placed | Declined | Replay | Busy
Outcome = Made | Declined | Replay | Busy


class Shelves:
    """Locked products, and what is left of them while a batch takes one order after the other."""

    def __init__(
        self,
        products: Mapping[UUID, Product],
        currency: str,
        strangers: Collection[int] = frozenset(),
    ) -> None:
        """`strangers` are ids of users that there are not: nobody pays for their orders."""
        self._products = products
        self._currency = currency
        self._strangers = strangers
        self._left = {product.id: product.stock for product in products.values()}

    def place(self, command: OrderCommand, item_ids: Sequence[UUID]) -> Placed:
        """Takes all of it or nothing. Raises what a customer is told."""
        if command.user_id is not None and command.user_id in self._strangers:
            raise UserNotFound(command.user_id)
        items = tuple(
            Item(item_id, line.product_id, line.quantity, self._for_sale(line).price.minor)
            for item_id, line in zip(item_ids, command.lines, strict=True)
        )
        for line in command.lines:
            if (left := self._left[line.product_id]) < line.quantity:
                raise InsufficientStock(line.product_id, line.quantity, left)
        total = sum(item.quantity * item.price_minor for item in items)
        if total > AMOUNT_MINOR_MAX:
            raise OrderTooLarge("the order comes to more than can be paid at once")
        for line in command.lines:
            self._left[line.product_id] -= line.quantity
        return Placed(command, items, _moves(command.id, items, MoveReason.RESERVED), total)

    def _for_sale(self, line: Line) -> Product:
        product = self._products.get(line.product_id)
        if product is None or not product.is_for_sale:
            raise ProductUnavailable(line.product_id)
        if (priced_in := product.price.currency) != self._currency:
            raise PricedInAnotherCurrency(product.id, priced_in, self._currency)
        return product


def _moves(order_id: UUID, items: Iterable[Item], reason: MoveReason) -> tuple[StockMove, ...]:
    sign = -1 if reason is MoveReason.RESERVED else 1
    return tuple(StockMove(i.product_id, sign * i.quantity, reason, order_id) for i in items)


def returns(order: Order) -> tuple[StockMove, ...]:
    """What goes back to the shelves when the order is canceled."""
    return _moves(order.id, order.items, MoveReason.RETURNED)


def summed(lines: Iterable[Line]) -> tuple[Line, ...]:
    """One product twice is the sum."""
    quantities: dict[UUID, int] = {}
    for line in lines:
        quantities[line.product_id] = quantities.get(line.product_id, 0) + line.quantity
    return tuple(Line(*pair) for pair in quantities.items())


def replay(command: OrderCommand, order: Order) -> Replay | Declined:
    """The order that the key has made, if it was asked for in the same words."""
    wanted = {
        "user_email": command.user_email,
        "items": sorted(command.lines),
        "user_id": command.user_id,
    }
    made = {
        "user_email": order.user_email,
        "items": sorted(Line(item.product_id, item.quantity) for item in order.items),
        "user_id": order.user_id,
    }
    differing = [name for name, value in wanted.items() if value != made[name]]
    return Declined(OrderKeyReused(differing)) if differing else Replay(order)


def as_placed(order: Order) -> Order:
    """As it was first answered, whatever has become of it."""
    return order._replace(status=Status.RESERVED, updated_at=order.created_at)


def decide_batch(
    commands: Sequence[OrderCommand],
    known: Mapping[str, Order],
    shelves: Shelves,
    busy: frozenset[UUID],
    item_ids: Iterable[UUID],
) -> list[Decision]:
    """In the order of arrival. `known` are orders by the keys that had made theirs before.

    Twins in one batch: the first is placed; the others come back `Busy`, to find it next time.
    """
    ids = iter(item_ids)
    seen: set[str] = set()
    decisions: list[Decision] = []
    for command in commands:
        if (order := known.get(command.key)) is not None:
            decisions.append(replay(command, order))
        elif command.key in seen or any(line.product_id in busy for line in command.lines):
            decisions.append(Busy())
        elif command.refusal is not None:
            decisions.append(Declined(command.refusal))
            continue  # who comes after it with its key is not its twin
        else:
            decisions.append(_place(shelves, command, [next(ids) for _ in command.lines]))
        seen.add(command.key)
    return decisions


def _place(shelves: Shelves, command: OrderCommand, item_ids: Sequence[UUID]) -> Placed | Declined:
    try:
        return shelves.place(command, item_ids)
    except Refused as reason:
        return Declined(reason)


def order_of(placed: Placed, currency: str, at: datetime) -> Order:
    """The order as it begins."""
    command, total = placed.command, Money(placed.total_minor, currency)
    return Order(
        command.id, command.user_email, Status.RESERVED, total, placed.items, command.user_id,
        None, at, at,
    )  # fmt: skip


def poll_again_seconds(waited_seconds: float) -> float:
    """As long again as it has waited so far: after one minute, two, four, and once a day at last.

    Twenty such polls, after which the outbox counts attempts, take ten days.
    """
    return min(max(POLL_SECONDS, waited_seconds), POLL_SECONDS_MAX)


def limited_as(user_email: str) -> str:
    """Whose orders count together: as most mail servers would deliver it.

    Without regard to case, tags, quotes, width and composition of letters (NFKC), marks that are
    not seen, and how the domain is spelled (IDNA).
    """
    text = normalize("NFKC", user_email).casefold()
    local, _, domain = "".join(c for c in text if category(c) not in _UNSEEN).rpartition("@")
    local = local.strip('"')
    with suppress(UnicodeError):
        domain = domain.rstrip(".").encode("idna").decode()
    return f"{local.partition('+')[0] or local}@{domain}"


def check_transition(order: Order, status: Status) -> None:
    assert status in TRANSITIONS[order.status], f"{order.id}: {order.status} to {status}"


@dataclass(frozen=True, slots=True)
class Pay:
    """The payment pays the order."""


@dataclass(frozen=True, slots=True)
class Compensate:
    """The order is canceled, and its stock goes back."""

    why: str = "the payment failed"


@dataclass(frozen=True, slots=True)
class GiveBack:
    """The money came for an order that it can no longer pay: it is returned."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing changes; `why` is counted."""

    why: str


Settlement = Pay | Compensate | GiveBack | Ignore

REPEATED: Final = "repeated"
ANOTHER: Final = "another payment failed"
TOO_LATE: Final = "failed after it was closed"
CONTRADICTION: Final = "failed after it had succeeded"


def settle(order: Order, payment: Payment | None, payment_id: str, result: Result) -> Settlement:
    """What a provider's word means. `payment` is what is known of that payment so far.

    Money that has come is never ignored: it pays this order, or it goes back. A payment that had
    failed and succeeds after all is money that has come.
    """
    status = PaymentStatus.PENDING if payment is None else payment.status
    is_ours = order.payment_id in (None, payment_id)
    if status is PaymentStatus.SUCCEEDED:
        return Ignore(REPEATED if result is Result.SUCCESS else CONTRADICTION)
    if result is Result.SUCCESS:
        return Pay() if order.status in OPEN and is_ours else GiveBack()
    if status is PaymentStatus.FAILED:
        return Ignore(REPEATED)
    if order.status not in OPEN:
        return Ignore(TOO_LATE)
    return Compensate() if is_ours else Ignore(ANOTHER)
