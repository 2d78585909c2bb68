"""Why a request about products is refused."""

from uuid import UUID

from picopay.kernel.errors import Invalid, Refused


class ProductNotFound(Refused):
    code = "product-not-found"

    def __init__(self, product_id: UUID) -> None:
        super().__init__(f"there is no product {product_id}", product_id=product_id)


class ProductArchived(Refused):
    code = "product-archived"

    def __init__(self, product_id: UUID) -> None:
        super().__init__(f"product {product_id} is archived for good", product_id=product_id)


class PriceInvalid(Invalid):
    def __init__(self, why: str) -> None:
        super().__init__(f"price {why}", ("price", why))
        self.why = why
