"""HTTP edge of transfers: the webhook that tells of them, and their status."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from picopay.access import guards
from picopay.access.model import Caller, Scope
from picopay.access.signatures import require_signed
from picopay.infra import metrics, tracing
from picopay.infra.db import Db
from picopay.infra.json import Json, body_of, parse
from picopay.infra.logs import log, log_all, request_id_var
from picopay.infra.problems import documented
from picopay.infra.routing import decode_cursor, header, limited_page, takes
from picopay.infra.settings import Settings
from picopay.transfers import service
from picopay.transfers.batcher import Batcher
from picopay.transfers.model import Receipt
from picopay.transfers.schemas import (
    NAME_PATTERN,
    AcceptedOut,
    TransferIn,
    TransferOut,
    TransferPageOut,
    TransferQuery,
)
from picopay.transfers.store import Filter

router = APIRouter(prefix="/v1", tags=["Transactions"])

# Log events; see docs/reference/logs.md.
ACCEPTED: Final = "transfer.accepted"
REPEATED: Final = "transfer.repeated"
CONFLICTING: Final = "transfer.conflicting"

_SIGNATURE: Final = header(
    "X-Signature",
    {"type": "string"},
    "Hex HMAC-SHA256 of the raw body, when a secret is set; other schemes have their own headers.",
)


@router.post(
    "/webhooks/transactions",
    response_model=AcceptedOut,
    status_code=202,
    summary="Tell of a transaction; acknowledged when it is kept, processed in the background",
    responses=documented(
        "signature-invalid", "validation", "body-too-large", "overloaded", "database-unavailable"
    ),
    openapi_extra=takes(TransferIn, _SIGNATURE),
)
async def post_webhook(request: Request) -> Response:
    raw = await body_of(request)
    _verify(request, raw)
    command = parse(raw, TransferIn).to_command()
    batcher: Batcher = request.app.state.transfers
    receipt = await batcher.receive(command, tracing.origin(request_id_var.get()))
    metrics.transfers_received.labels(receipt).inc()
    if receipt is Receipt.CONFLICTING:
        log.warning(CONFLICTING, transaction_id=command.transaction_id)
    else:
        event = ACCEPTED if receipt is Receipt.ACCEPTED else REPEATED
        log_all(event, [{"transaction_id": command.transaction_id}])
    return Json(AcceptedOut(command.transaction_id), status_code=202)


def _verify(request: Request, raw: bytes) -> None:
    """Raises `SignatureInvalid`."""
    settings: Settings = request.app.state.settings
    if secrets := settings.transaction_webhook_secrets:
        require_signed(request, raw, settings.transaction_webhook_scheme, secrets)


@router.get(
    "/transactions",
    response_model=TransferPageOut,
    summary="Transactions, newest first",
    responses=documented(*guards.PROBLEMS, "validation", "cursor-invalid", "database-unavailable"),
    openapi_extra=guards.SECURITY,
)
async def list_transactions(
    request: Request,
    query: Annotated[TransferQuery, Query()],
    _caller: Annotated[Caller, Depends(guards.guard(Scope.TRANSACTIONS))],
) -> Response:
    db: Db = request.app.state.db
    wanted = Filter(query.status, query.account, decode_cursor(query.cursor, UUID))
    found = await service.page(db, wanted, query.limit)
    return Json(limited_page(found, query.limit, TransferOut.of, lambda transfer: transfer.id))


@router.get(
    "/transactions/{transaction_id:name}",
    response_model=TransferOut,
    summary="One transaction and its status",
    responses=documented(
        *guards.PROBLEMS, "transaction-not-found", "validation", "database-unavailable"
    ),
    openapi_extra=guards.OPTIONAL,
)
async def get_transaction(
    request: Request, transaction_id: Annotated[str, Path(pattern=NAME_PATTERN)]
) -> Response:
    """Without an API key, unless `TRANSACTIONS_REQUIRE_API_KEY`: who sent it knows its id."""
    settings: Settings = request.app.state.settings
    if settings.transactions_require_api_key:
        await guards.require(request, Scope.TRANSACTIONS)
    db: Db = request.app.state.db
    return Json(TransferOut.of(await service.show(db, transaction_id)))


# Called by the edge, as those of charges are.
HOT: Final = {("POST", f"{router.prefix}/webhooks/transactions"): post_webhook}
