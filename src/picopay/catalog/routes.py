"""HTTP edge of products: administrators keep them, everybody sees them."""

from typing import Annotated, Final
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from picopay.access import guards
from picopay.catalog import service
from picopay.catalog.schemas import (
    AdminProductOut,
    ProductIn,
    ProductOut,
    ProductPatch,
    ProductQuery,
    cursor_after,
)
from picopay.infra.db import Db
from picopay.infra.json import Json, body_of, parse
from picopay.infra.problems import documented
from picopay.infra.routing import takes
from picopay.infra.settings import Settings

router = APIRouter(tags=["Products"])

_ADMIN: Final = [Depends(guards.require_admin)]
_COMMON: Final = ("validation", "overloaded", "database-unavailable")
_ADMIN_PROBLEMS: Final = (*guards.ADMIN_PROBLEMS, *_COMMON)
_NEXT: Final = {
    "headers": {
        "Link": {
            "schema": {"type": "string", "examples": ['</products?cursor=…>; rel="next"']},
            "description": "Where the list goes on (RFC 8288); not there on its last page.",
        }
    }
}


@router.post(
    "/admin/products",
    response_model=ProductOut,
    status_code=201,
    dependencies=_ADMIN,
    summary="Add a product",
    responses=documented(*_ADMIN_PROBLEMS, "body-too-large", "outcome-unknown"),
    openapi_extra=takes(ProductIn) | guards.ADMIN_SECURITY,
)
async def post_product(request: Request) -> Response:
    db: Db = request.app.state.db
    settings: Settings = request.app.state.settings
    product = parse(await body_of(request), ProductIn, settings.shop_currency).to_new()
    return Json(ProductOut.of(await service.add(db, product)), status_code=201)


@router.get(
    "/admin/products/{product_id}",
    response_model=AdminProductOut,
    dependencies=_ADMIN,
    summary="A product, archived or not",
    responses=documented(*_ADMIN_PROBLEMS, "product-not-found"),
    openapi_extra=guards.ADMIN_SECURITY,
)
async def get_admin_product(request: Request, product_id: UUID) -> Response:
    db: Db = request.app.state.db
    return Json(AdminProductOut.of(await service.show(db, product_id)))


@router.patch(
    "/admin/products/{product_id}",
    response_model=ProductOut,
    dependencies=_ADMIN,
    summary="Change a product; orders keep the price that they were placed at",
    responses=documented(
        *_ADMIN_PROBLEMS, "product-not-found", "product-archived", "body-too-large"
    ),
    openapi_extra=takes(ProductPatch) | guards.ADMIN_SECURITY,
)
async def patch_product(request: Request, product_id: UUID) -> Response:
    db: Db = request.app.state.db
    settings: Settings = request.app.state.settings
    change = parse(await body_of(request), ProductPatch, settings.shop_currency).to_change()
    return Json(ProductOut.of(await service.change(db, product_id, change)))


@router.delete(
    "/admin/products/{product_id}",
    status_code=204,
    response_class=Response,
    dependencies=_ADMIN,
    summary="Archive a product: listed and ordered no more, its history stays",
    responses=documented(*_ADMIN_PROBLEMS, "product-not-found"),
    openapi_extra=guards.ADMIN_SECURITY,
)
async def delete_product(request: Request, product_id: UUID) -> Response:
    db: Db = request.app.state.db
    await service.archive(db, product_id)
    return Response(status_code=204)


@router.get(
    "/products",
    response_model=list[ProductOut],
    summary="Products, newest first unless sorted otherwise",
    responses={200: _NEXT} | documented(*_COMMON, "cursor-invalid"),
)
async def list_products(request: Request, query: Annotated[ProductQuery, Query()]) -> Response:
    db: Db = request.app.state.db
    listing = query.to_listing()
    found = await service.page(db, listing, query.limit)
    shown = found[: query.limit]
    headers: dict[str, str] = {}
    if len(found) > len(shown):
        asked = {name: request.query_params[name] for name in query.model_fields_set}
        following = urlencode(asked | {"cursor": cursor_after(shown[-1], listing)})
        headers["Link"] = f'<{request.url.path}?{following}>; rel="next"'
    return Json([ProductOut.of(product) for product in shown], headers=headers)


@router.get(
    "/products/{product_id}",
    response_model=ProductOut,
    summary="A product that is not archived",
    responses=documented(*_COMMON, "product-not-found"),
)
async def get_product(request: Request, product_id: UUID) -> Response:
    db: Db = request.app.state.db
    return Json(ProductOut.of(await service.show_listed(db, product_id)))
