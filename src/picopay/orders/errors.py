"""Why an order is refused."""

from uuid import UUID

from picopay.idempotency.errors import KeyReused
from picopay.kernel.errors import Refused


class ProductUnavailable(Refused):
    """A product that there is not, or that is not sold."""

    code = "product-unavailable"

    def __init__(self, product_id: UUID, why: str = "") -> None:
        super().__init__(f"product {product_id} is not for sale{why}", product_id=product_id)


class PricedInAnotherCurrency(ProductUnavailable):
    """Priced before the shop's currency was changed: setting its price anew puts it on sale."""

    def __init__(self, product_id: UUID, priced_in: str, shop: str) -> None:
        super().__init__(product_id, f": it is priced in {priced_in}, the shop sells in {shop}")


class InsufficientStock(Refused):
    code = "insufficient-stock"

    def __init__(self, product_id: UUID, requested: int, available: int) -> None:
        super().__init__(
            f"{available} of product {product_id} are left, {requested} were asked for",
            product_id=product_id,
            requested=requested,
            available=available,
        )


class PaymentOfAnotherOrder(Refused):
    """The provider made it for another: its money neither pays this one nor is given back here."""

    code = "payment-of-another-order"

    def __init__(self, payment_id: str) -> None:
        super().__init__(f"payment {payment_id} is another order's", payment_id=payment_id)


class RefundNotFound(Refused):
    code = "refund-not-found"

    def __init__(self, order_id: UUID, payment_id: str) -> None:
        super().__init__(f"payment {payment_id} of order {order_id} is not given back")


class RefundInProgress(Refused):
    """A person must not do what the provider is being asked for: it would be done twice."""

    code = "refund-in-progress"


class OrderTooLarge(Refused):
    code = "order-too-large"


class OrderKeyReused(KeyReused):
    """As `KeyReused`; the orders API has always answered it so."""

    status = 409


class OrderNotFound(Refused):
    code = "order-not-found"

    def __init__(self, order_id: UUID) -> None:
        super().__init__(f"there is no order {order_id}")


class OrderNotCancelable(Refused):
    code = "order-not-cancelable"

    def __init__(self, order_id: UUID, status: str) -> None:
        super().__init__(f"order {order_id} is {status}", status_of_order=status)
