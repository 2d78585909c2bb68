"""HTTP edge of refunds of orders: what is owed, and what a person has given back."""

import re
from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from picopay.access import guards
from picopay.infra.db import Db
from picopay.infra.json import Json, body_of, parse
from picopay.infra.logs import log
from picopay.infra.problems import documented
from picopay.infra.routing import decode_cursor, limited_page, takes
from picopay.orders import payments
from picopay.orders.model import PAYMENT_ID, RefundFilter
from picopay.orders.schemas import (
    OrderRefundOut,
    OrderRefundPageOut,
    RefundQuery,
    ReturnedIn,
)

router = APIRouter(
    prefix="/admin/refunds", tags=["Orders"], dependencies=[Depends(guards.require_admin)]
)

_PROBLEMS: Final = (*guards.ADMIN_PROBLEMS, "validation", "database-unavailable")


@router.get(
    "",
    response_model=OrderRefundPageOut,
    summary="Money that came in vain and is given back, of the newest orders first",
    responses=documented(*_PROBLEMS, "cursor-invalid"),
    openapi_extra=guards.ADMIN_SECURITY,
)
async def list_order_refunds(request: Request, query: Annotated[RefundQuery, Query()]) -> Response:
    db: Db = request.app.state.db
    wanted = RefundFilter(query.status, decode_cursor(query.cursor, _position))
    found = await payments.refunds(db, wanted, query.limit)
    return Json(
        limited_page(found, query.limit, OrderRefundOut.of, lambda r: [r.order_id, r.payment_id])
    )


@router.post(
    "",
    response_model=OrderRefundOut,
    summary="Book a refund that a person has made, since no provider could",
    responses=documented(
        *_PROBLEMS, "refund-not-found", "refund-in-progress", "body-too-large", "overloaded"
    ),
    openapi_extra=takes(ReturnedIn) | guards.ADMIN_SECURITY,
)
async def post_returned(request: Request) -> Response:
    db: Db = request.app.state.db
    told = parse(await body_of(request), ReturnedIn)
    refund = await payments.returned(db, told.order_id, told.payment_id)
    log.info("order.refunded_by_hand", order_id=str(told.order_id))
    return Json(OrderRefundOut.of(refund))


def _position(raw: Sequence[str]) -> tuple[UUID, str]:
    order_id, payment_id = raw
    if not re.fullmatch(PAYMENT_ID, payment_id):
        raise ValueError(payment_id)
    return UUID(order_id), payment_id
