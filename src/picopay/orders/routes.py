"""HTTP edge of orders: place, look, cancel, and what payment providers call back."""

from http import HTTPStatus
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from picopay.access import guards
from picopay.access.errors import RateLimited
from picopay.access.limits import Limits
from picopay.access.model import Grant, Rule, Scope
from picopay.access.signatures import require_signed
from picopay.idempotency.errors import KeyInvalid
from picopay.idempotency.rules import parse_key, sent_keys
from picopay.infra import metrics, tracing
from picopay.infra.db import Db
from picopay.infra.json import Json, body_of, parse
from picopay.infra.logs import log, log_all, request_id_var
from picopay.infra.problems import documented
from picopay.infra.routing import REPLAYABLE, decode_cursor, header, limited_page, takes
from picopay.infra.settings import Settings
from picopay.kernel.signing import Scheme
from picopay.orders import endings, payments, service
from picopay.orders.batcher import Batcher, Settler
from picopay.orders.model import Filter, Provider, Word
from picopay.orders.rules import Declined, Made, Replay, as_placed, limited_as
from picopay.orders.schemas import (
    CallbackIn,
    OrderIn,
    OrderOut,
    OrderPageOut,
    OrderQuery,
    SettledOut,
    TimelineEntryOut,
    TimelineOut,
)

router = APIRouter(tags=["Orders"])

# Log events; see docs/reference/logs.md.
PLACED: Final = "order.placed"
REPLAYED: Final = "order.replayed"
REFUSED: Final = "order.refused"

_KEY: Final = header(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "Makes a retry safe: the same key places one order, however often it is sent.",
) | {"required": True}
_SIGNATURE: Final = header("X-Signature", {"type": "string"}, "Hex HMAC-SHA256 of the raw body.")
WINDOW_SECONDS: Final = 60
_REPLAY_HEADERS: Final = {"Idempotent-Replayed": "true"}


@router.post(
    "/orders",
    response_model=OrderOut,
    status_code=201,
    summary="Place an order: its stock is reserved at once, its payment follows",
    responses={201: REPLAYABLE}
    | documented(
        *guards.PROBLEMS, "validation", "idempotency-key-invalid", "product-unavailable",
        "insufficient-stock", "idempotency-key-reused", "order-too-large", "user-not-found",
        "rate-limited", "overloaded", "body-too-large", "database-unavailable",
        own_statuses={"idempotency-key-reused": HTTPStatus.CONFLICT},
    ),
    openapi_extra=takes(OrderIn, _KEY) | guards.OPTIONAL,
)  # fmt: skip
async def post_order(request: Request) -> Response:
    await _require_key_if_asked(request)
    settings: Settings = request.app.state.settings
    body = parse(await body_of(request), OrderIn, settings.provider == Provider.WALLET)
    if (key := parse_key(sent_keys(request.scope["headers"]))) is None:
        raise KeyInvalid("send an Idempotency-Key header: it makes a retry safe")
    command = body.to_command(key, tracing.origin(request_id_var.get()))
    limits: Limits = request.app.state.limits
    grant: Grant | None = None
    try:
        grant = await limits.take(_limited(request, body))
    except RateLimited as limited:
        command = command._replace(refusal=limited)
    batcher: Batcher = request.app.state.orders
    match await batcher.place(command):
        case Made(order):
            metrics.orders.inc()
            log_all(PLACED, [{"order_id": order.id, "items": len(order.items)}])
            return Json(OrderOut.of(order), status_code=201)
        case Replay(order):
            if grant is not None:
                await limits.give_back(grant)
            log_all(REPLAYED, [{"order_id": order.id}])
            return Json(OrderOut.of(as_placed(order)), status_code=201, headers=_REPLAY_HEADERS)
        case Declined(reason):
            log.info(REFUSED, code=reason.code)
            raise reason


async def _require_key_if_asked(request: Request) -> None:
    """A storefront's customers have no API key; who spends users' balances needs one."""
    settings: Settings = request.app.state.settings
    if settings.orders_require_api_key or settings.provider == Provider.WALLET:
        await guards.require(request, Scope.ORDERS)


def _limited(request: Request, body: OrderIn) -> list[tuple[Rule, str]]:
    settings: Settings = request.app.state.settings
    per_email = settings.rate_limit_orders_per_minute
    per_address = settings.rate_limit_orders_per_address_per_minute
    return [
        (Rule("orders-per-email", per_email, WINDOW_SECONDS), limited_as(body.user_email)),
        (
            Rule("orders-per-address", per_address, WINDOW_SECONDS),
            guards.client_address(request),
        ),
    ]


@router.get(
    "/orders",
    response_model=OrderPageOut,
    summary="Orders, newest first",
    responses=documented(
        *guards.ADMIN_PROBLEMS, "validation", "cursor-invalid", "database-unavailable"
    ),
    openapi_extra=guards.ADMIN_SECURITY,
    dependencies=[Depends(guards.require_admin)],
)
async def list_orders(request: Request, query: Annotated[OrderQuery, Query()]) -> Response:
    db: Db = request.app.state.db
    wanted = Filter(query.user_email, query.status, decode_cursor(query.cursor, UUID))
    found = await service.page(db, wanted, query.limit)
    return Json(limited_page(found, query.limit, OrderOut.of, lambda order: order.id))


_ONE: Final = ("order-not-found", "validation", "database-unavailable", *guards.PROBLEMS)


@router.get(
    "/orders/{order_id}",
    response_model=OrderOut,
    summary="One order",
    responses=documented(*_ONE),
    openapi_extra=guards.OPTIONAL,
    dependencies=[Depends(_require_key_if_asked)],
)
async def get_order(request: Request, order_id: UUID) -> Response:
    return Json(OrderOut.of(await service.show(request.app.state.db, order_id)))


@router.get(
    "/orders/{order_id}/events",
    response_model=TimelineOut,
    summary="All that has happened to an order, in order",
    responses=documented(*_ONE),
    openapi_extra=guards.OPTIONAL,
    dependencies=[Depends(_require_key_if_asked)],
)
async def get_timeline(request: Request, order_id: UUID) -> Response:
    entries = await service.timeline(request.app.state.db, order_id)
    return Json(TimelineOut([TimelineEntryOut.of(entry) for entry in entries]))


@router.post(
    "/orders/{order_id}/cancel",
    response_model=OrderOut,
    summary="Cancel an order that is not paid; its stock goes back",
    responses=documented(*_ONE, "order-not-cancelable", "overloaded"),
    openapi_extra=guards.OPTIONAL,
    dependencies=[Depends(_require_key_if_asked)],
)
async def post_cancel(request: Request, order_id: UUID) -> Response:
    settler: Settler = request.app.state.settler
    return Json(OrderOut.of(await settler.cancel(order_id)))


@router.post(
    "/payments/callback",
    response_model=SettledOut,
    summary="A payment provider tells what became of a payment; repeats change nothing",
    responses=documented(
        "signature-invalid", "validation", "order-not-found", "payment-of-another-order",
        "overloaded", "body-too-large", "database-unavailable",
    ),
    openapi_extra=takes(CallbackIn, _SIGNATURE),
)  # fmt: skip
async def post_callback(request: Request) -> Response:
    raw = await body_of(request)
    settings: Settings = request.app.state.settings
    require_signed(request, raw, Scheme.HEX, settings.payment_webhook_secrets)
    told = parse(raw, CallbackIn)
    settler: Settler = request.app.state.settler
    settlement = await settler.settle(Word(told.order_id, told.payment_id, told.status))
    log.info("payment.told", **payments.told(told.order_id, settlement), result=told.status)
    endings.settled(told.order_id, settlement)
    return Json(SettledOut())


# Called by the edge, as those of charges are.
HOT: Final = {("POST", "/orders"): post_order, ("POST", "/payments/callback"): post_callback}
