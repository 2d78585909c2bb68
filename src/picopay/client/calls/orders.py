"""Orders: a storefront places, looks and cancels; administrators see all of them."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from picopay.client.calls.pages import listing
from picopay.client.fields import Fields, encode
from picopay.client.model import (
    Order,
    OrderEvent,
    OrderItem,
    OrderLine,
    OrderRefund,
    OrderRefundStatus,
    OrderStatus,
    new_key,
)
from picopay.client.wire import Call, Credential, Listing, Repeat, Told, path

_ADMIN: Final = Credential.ADMIN


def place(
    *,
    user_email: str,
    items: Sequence[OrderLine],
    user_id: int | None = None,
    idempotency_key: UUID | str | None = None,
) -> Call[Order]:
    """Reserve stock at once; the payment follows. `user_id`: with `PAYMENT_PROVIDER=wallet`."""
    lines = [{"product_id": str(line.product_id), "quantity": line.quantity} for line in items]
    body: dict[str, object] = {"user_email": user_email, "items": lines}
    return Call(
        method="POST",
        path="/orders",
        body=encode(body if user_id is None else {**body, "user_id": user_id}),
        key=new_key() if idempotency_key is None else str(idempotency_key),
        read=lambda told: _order(Fields(told.json), told.key, replayed=told.replayed),
    )


def get(order_id: UUID | str) -> Call[Order]:
    return Call(
        method="GET",
        path=path("/orders/{}", order_id),
        read=lambda told: _order(Fields(told.json)),
    )


def events(order_id: UUID | str) -> Call[list[OrderEvent]]:
    """All that has happened to the order, in order."""
    return Call(method="GET", path=path("/orders/{}/events", order_id), read=_read_events)


def cancel(order_id: UUID | str) -> Call[Order]:
    """Cancel an order that is open. Not tried again by itself: a second one would be declined."""
    return Call(
        method="POST",
        path=path("/orders/{}/cancel", order_id),
        repeat=Repeat.NEVER,
        read=lambda told: _order(Fields(told.json)),
    )


def list_all(
    *, user_email: str | None = None, status: OrderStatus | None = None, limit: int = 100
) -> Listing[Order]:
    """Orders, newest first. Needs the admin secret."""
    params = {"user_email": user_email, "status": status, "limit": limit}
    return listing("/orders", params, _order, _ADMIN)


def refunds(*, status: OrderRefundStatus | None = None, limit: int = 100) -> Listing[OrderRefund]:
    """Money that came in vain, of the newest orders first. Needs the admin secret."""
    params = {"status": status, "limit": limit}
    return listing("/admin/refunds", params, _refund, _ADMIN)


def book_refund(order_id: UUID | str, payment_id: str) -> Call[OrderRefund]:
    """Tell of a refund that a person has made; once is enough. Needs the admin secret."""
    return Call(
        method="POST",
        path="/admin/refunds",
        body=encode({"order_id": str(order_id), "payment_id": payment_id}),
        credential=_ADMIN,
        read=lambda told: _refund(Fields(told.json)),
    )


def _refund(fields: Fields) -> OrderRefund:
    return OrderRefund(
        fields.id("order_id"),
        fields.text("payment_id"),
        fields.money("amount"),
        fields.text("provider"),
        fields.text("status"),
    )


def _order(fields: Fields, key: str | None = None, *, replayed: bool = False) -> Order:
    return Order(
        fields.id("id"),
        fields.text("user_email"),
        fields.text("status"),
        fields.number("items_total"),
        fields.text("currency"),
        tuple(_item(item) for item in fields.each("items")),
        fields.moment("created_at"),
        fields.moment("updated_at"),
        key,
        replayed,
    )


def _item(fields: Fields) -> OrderItem:
    return OrderItem(
        fields.id("id"),
        fields.id("product_id"),
        fields.whole("quantity"),
        fields.number("price_snapshot"),
    )


def _read_events(told: Told) -> list[OrderEvent]:
    return [
        OrderEvent(
            event.whole("seq"),
            event.text("event"),
            event.text_or_none("detail"),
            event.moment("at"),
        )
        for event in Fields(told.json).each("data")
    ]
