"""HTTP edge of refunds."""

from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from picopay.access import guards
from picopay.access.model import Caller, Scope
from picopay.charges import refunds, service
from picopay.charges.model import Refund
from picopay.charges.refunds_schemas import RefundIn, RefundOut, RefundPageOut
from picopay.charges.turns import Turns
from picopay.idempotency.errors import KeyInvalid
from picopay.idempotency.rules import parse_uuid_key, sent_keys
from picopay.infra import metrics
from picopay.infra.db import Db
from picopay.infra.json import Json, body_of, parse
from picopay.infra.logs import log
from picopay.infra.problems import PROBLEMS, documented
from picopay.infra.routing import REPLAYABLE, Page, decode_cursor, header, limited_page, takes
from picopay.kernel.errors import Refused
from picopay.kernel.money import AMOUNT_MINOR_MAX

router = APIRouter(prefix="/v1/charges/{charge_id}/refunds", tags=["Charges"])

_Caller = Annotated[Caller, Depends(guards.guard(Scope.CHARGES))]
_COMMON: Final = (*guards.PROBLEMS, "charge-not-found", "validation", "database-unavailable")
_FAILURES: Final = 500  # statuses from there on are not the caller's doing
_KEY: Final = header(
    "Idempotency-Key",
    {"type": "string", "format": "uuid"},
    "Makes a retry safe: the same key refunds once, however often it is sent.",
) | {"required": True}


@router.post(
    "",
    response_model=RefundOut,
    status_code=201,
    summary="Give money of a charge back to its user, once for each key",
    responses={201: REPLAYABLE}
    | documented(
        *_COMMON, "refund-exceeds-charge", "merchant-balance-insufficient",
        "idempotency-key-invalid", "idempotency-key-reused", "account-limit", "body-too-large",
        "overloaded", "outcome-unknown",
    ),
    openapi_extra=takes(RefundIn, _KEY) | guards.SECURITY,
)  # fmt: skip
async def post_refund(request: Request, charge_id: UUID, caller: _Caller) -> Response:
    try:
        made, replayed = await _refund(request, charge_id, caller)
    except ClientDisconnect:
        raise  # in the middle of the body: nobody was answered, so nothing is counted
    except Exception as error:
        _count_refused(error, charge_id)
        raise
    told = {"refund_id": str(made.id), "charge_id": str(made.charge_id)}
    if replayed:
        metrics.refunds.labels("replayed").inc()
        log.info("refund.replayed", **told)
    else:
        metrics.refunds.labels("succeeded").inc()
        log.info("refund.succeeded", **told)
    headers = {"Idempotent-Replayed": "true"} if replayed else None
    return Json(RefundOut.of(made), status_code=201, headers=headers)


async def _refund(request: Request, charge_id: UUID, caller: Caller) -> tuple[Refund, bool]:
    db: Db = request.app.state.db
    turns: Turns = request.app.state.refund_turns
    body = parse(await body_of(request), RefundIn)
    key = parse_uuid_key(sent_keys(request.scope["headers"]))
    if key is None:
        raise KeyInvalid("a refund needs an Idempotency-Key header with a UUID")
    charge = (await service.show(db, caller.merchant_id, charge_id)).charge
    command = body.to_command(charge, key)
    return await refunds.refund(db, command, partial(turns.take, caller.merchant_id))


def _count_refused(error: Exception, charge_id: UUID) -> None:
    """Our own failures too; what is no refusal is logged by the edge."""
    failed = not isinstance(error, Refused) or PROBLEMS[error.code][0] >= _FAILURES
    metrics.refunds.labels("failed" if failed else "refused").inc()
    if isinstance(error, Refused):
        log.info("refund.refused", charge_id=str(charge_id), code=error.code)


@router.get(
    "",
    response_model=RefundPageOut,
    summary="The charge's refunds, newest first",
    responses=documented(*_COMMON, "cursor-invalid"),
    openapi_extra=guards.SECURITY,
)
async def list_refunds(
    request: Request, charge_id: UUID, query: Annotated[Page, Query()], caller: _Caller
) -> Response:
    db: Db = request.app.state.db
    below = decode_cursor(query.cursor, _total)
    charge = (await service.show(db, caller.merchant_id, charge_id)).charge
    found = await refunds.page(db, charge, below, query.limit)
    return Json(limited_page(found, query.limit, RefundOut.of, lambda r: r.refunded_after_minor))


def _total(position: Any) -> int:  # noqa: ANN401 - whatever a caller has sent
    if type(position) is not int or not 0 < position <= AMOUNT_MINOR_MAX:
        raise ValueError(position)
    return position
