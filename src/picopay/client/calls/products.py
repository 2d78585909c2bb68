"""Products: everybody sees them, administrators keep them."""

from typing import Final
from uuid import UUID

from picopay.client.fields import Fields, each, encode, exact
from picopay.client.model import Amount, Page, Product, ProductOrder
from picopay.client.wire import Call, Credential, Listing, Repeat, Told, next_cursor, path

_ADMIN: Final = Credential.ADMIN
_NOBODY: Final = Credential.NONE


def list_all(
    *,
    q: str | None = None,
    is_active: bool = True,
    sort_by: ProductOrder = "created_at",
    sort_desc: bool = True,
    limit: int = 100,
) -> Listing[Product]:
    """Products, newest first unless sorted otherwise; `q` is part of the name, in any case."""
    params = {
        "q": q,
        "is_active": is_active,
        "sort_by": sort_by,
        "sort_desc": sort_desc,
        "limit": limit,
    }
    return Listing(
        Call(method="GET", path="/products", params=params, credential=_NOBODY, read=_read_page)
    )


def get(product_id: UUID | str) -> Call[Product]:
    """A product that is not archived."""
    return Call(
        method="GET",
        path=path("/products/{}", product_id),
        credential=_NOBODY,
        read=lambda told: _product(Fields(told.json)),
    )


def get_any(product_id: UUID | str) -> Call[Product]:
    """A product, archived or not. Needs the admin secret."""
    return Call(
        method="GET",
        path=path("/admin/products/{}", product_id),
        credential=_ADMIN,
        read=lambda told: _product(Fields(told.json)),
    )


def create(*, name: str, price: Amount, stock: int = 0, is_active: bool = True) -> Call[Product]:
    """Needs the admin secret. Not tried again by itself: it would be made twice."""
    body = {"name": name, "price": exact(price), "stock": stock, "is_active": is_active}
    return Call(
        method="POST",
        path="/admin/products",
        body=encode(body),
        credential=_ADMIN,
        repeat=Repeat.NEVER,
        read=lambda told: _product(Fields(told.json)),
    )


def update(
    product_id: UUID | str,
    *,
    name: str | None = None,
    price: Amount | None = None,
    stock: int | None = None,
    is_active: bool | None = None,
) -> Call[Product]:
    """Change what is given. Needs the admin secret.

    Not tried again by itself: what was sold in between would be in stock once more.
    """
    change = {
        "name": name,
        "price": None if price is None else exact(price),
        "stock": stock,
        "is_active": is_active,
    }
    return Call(
        method="PATCH",
        path=path("/admin/products/{}", product_id),
        body=encode({field: value for field, value in change.items() if value is not None}),
        credential=_ADMIN,
        repeat=Repeat.NEVER,
        read=lambda told: _product(Fields(told.json)),
    )


def archive(product_id: UUID | str) -> Call[None]:
    """Listed and ordered no more; twice is no error. Needs the admin secret."""
    return Call(
        method="DELETE",
        path=path("/admin/products/{}", product_id),
        credential=_ADMIN,
        read=lambda _told: None,
    )


def _read_page(told: Told) -> Page[Product]:
    products = tuple(_product(fields) for fields in each(told.json))
    return Page(products, next_cursor(told.header("link")))


def _product(fields: Fields) -> Product:
    return Product(
        fields.id("id"),
        fields.text("name"),
        fields.number("price"),
        fields.text("currency"),
        fields.whole("stock"),
        fields.flag("is_active"),
        fields.moment("created_at"),
        fields.moment("updated_at"),
        fields.moment_or_none("archived_at"),
    )
