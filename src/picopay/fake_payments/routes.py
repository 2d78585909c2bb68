"""HTTP edge of the fake payment provider: as if it were somebody else's service."""

import asyncio
from typing import Final
from uuid import UUID

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from picopay.fake_payments import service
from picopay.fake_payments.errors import FakePaymentNotFound
from picopay.fake_payments.model import CONSUMER, PaymentCommand
from picopay.fake_payments.schemas import (
    FakePaymentAcceptedOut,
    FakePaymentIn,
    FakePaymentOut,
    FakeRefundOut,
)
from picopay.fake_payments.service import Odds
from picopay.idempotency.rules import parse_key, sent_keys
from picopay.infra import tracing
from picopay.infra.db import Db
from picopay.infra.json import Json, body_of, parse
from picopay.infra.logs import log, request_id_var
from picopay.infra.problems import NotFound, documented
from picopay.infra.routing import REPLAYABLE, header, takes
from picopay.infra.settings import Settings
from picopay.outbox.bell import Rings
from picopay.outbox.pace import POLL_SECONDS_MAX


async def _on(request: Request) -> None:
    """Raises `NotFound`: while it is off there is nothing here, whatever is asked."""
    settings: Settings = request.app.state.settings
    if not settings.fake_payment_enabled:
        raise NotFound(f"there is nothing at {request.url.path}")


router = APIRouter(prefix="/_fake_payments", tags=["Fake payments"], dependencies=[Depends(_on)])

_COMMON: Final = ("not-found", "database-unavailable")
_KEY: Final = header(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "Makes a retry safe: the same key makes one payment.",
)


@router.post(
    "",
    response_model=FakePaymentAcceptedOut,
    summary="Ask the fake provider for a payment; its end is told later, by a signed callback",
    responses={200: REPLAYABLE}
    | documented(
        *_COMMON, "validation", "idempotency-key-invalid", "idempotency-key-reused",
        "body-too-large", "outcome-unknown",
    ),
    openapi_extra=takes(FakePaymentIn, _KEY),
)  # fmt: skip
async def post_payment(request: Request) -> Response:
    state = request.app.state
    body = parse(await body_of(request), FakePaymentIn)
    command = body.to_command(parse_key(sent_keys(request.scope["headers"])), state.settings)
    odds = Odds(state.settings.fake_payment_success_rate, state.chance)
    made = await service.create(state.db, command, odds, tracing.origin(request_id_var.get()))
    accepted = FakePaymentAcceptedOut(made.payment.id)
    if made.replayed:
        return Json(accepted, headers={"Idempotent-Replayed": "true"})
    _tell(state.bell, command)
    # Not when it is repeated: that is how a client which gave up learns what it has made.
    await asyncio.sleep(command.knobs.silence_seconds)
    return Json(accepted)


def _tell(bell: Rings, command: PaymentCommand) -> None:
    if command.knobs.delay_seconds < POLL_SECONDS_MAX:  # what is due later is found by looking
        bell.ring(CONSUMER)
    log.info("fake_payment.created", payment_id=str(command.id), order_id=command.order_id)


@router.get(
    "/{payment_id}",
    response_model=FakePaymentOut,
    summary="All that the fake provider knows of a payment",
    responses=documented(*_COMMON, "fake-payment-not-found"),
)
async def get_payment(request: Request, payment_id: str) -> Response:
    db: Db = request.app.state.db
    return Json(FakePaymentOut.of(await service.show(db, _id(payment_id))))


@router.post(
    "/{payment_id}/refunds",
    response_model=FakeRefundOut,
    summary="Give a payment back, once",
    responses=documented(*_COMMON, "fake-payment-not-found", "fake-payment-not-refundable"),
)
async def post_refund(request: Request, payment_id: str) -> Response:
    db: Db = request.app.state.db
    known = _id(payment_id)
    if await service.refund(db, known):
        log.info("fake_payment.refunded", payment_id=str(known))
    return Json(FakeRefundOut(known))


def _id(text: str) -> UUID:
    """Raises `FakePaymentNotFound`: what is no id of ours is nobody's payment."""
    try:
        payment_id = UUID(text)
    except ValueError:
        raise FakePaymentNotFound(text) from None
    if str(payment_id) != text:  # or one payment would have many names
        raise FakePaymentNotFound(text)
    return payment_id
