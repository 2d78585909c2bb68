"""The last log line about an order, by whoever knows that its end is committed.

`origin` is `request_id=…` where a worker writes it: that of the request which placed the order.
"""

from uuid import UUID

from picopay.infra.logs import log
from picopay.orders.rules import Compensate, Pay, Settlement


def settled(order_id: UUID, settlement: Settlement, **origin: str | None) -> None:
    """Nothing, if the order was closed before."""
    match settlement:
        case Pay():
            paid(order_id, **origin)
        case Compensate(why):
            canceled(order_id, why, **origin)
        case _:
            pass


def paid(order_id: UUID, **origin: str | None) -> None:
    log.info("order.paid", order_id=str(order_id), **origin)


def canceled(order_id: UUID, why: str, **origin: str | None) -> None:
    log.info("order.canceled", order_id=str(order_id), why=why, **origin)
