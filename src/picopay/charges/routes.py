"""HTTP edge of charging."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from time import perf_counter
from typing import Annotated, Final, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from picopay.access import guards
from picopay.access.model import Caller, Scope
from picopay.charges import service
from picopay.charges.batcher import Batcher
from picopay.charges.bulk import BulkTurns
from picopay.charges.model import Approved, ChargeCommand, Decision, Declined, Replayed
from picopay.charges.schemas import (
    BatchItemIn,
    BatchResultOut,
    ChargeBatchIn,
    ChargeBatchOut,
    ChargeIn,
    ChargeOut,
    ChargePageOut,
    ChargeQuery,
    ListedChargeOut,
    charge_json,
    plain_command,
    plain_items,
    result_json,
)
from picopay.charges.store import Filter
from picopay.idempotency.errors import KeyInvalid
from picopay.idempotency.rules import check_misplaced, parse_uuid_key, sent_keys
from picopay.infra import metrics
from picopay.infra.db import Db
from picopay.infra.json import Json, body_of, decode, dump, parse, validate
from picopay.infra.logs import log_all
from picopay.infra.problems import document, documented
from picopay.infra.protocol import hung_up
from picopay.infra.routing import REPLAYABLE, decode_cursor, header, limited_page, takes
from picopay.kernel.errors import Refused
from picopay.ledger.errors import InsufficientFunds

T = TypeVar("T")

router = APIRouter(tags=["Charges"])

_KEY: Final = header(
    "Idempotency-Key",
    {"type": "string", "format": "uuid"},
    "Makes a retry safe: the same key charges once, however often it is sent.",
)
_SCOPE: Final = Scope.CHARGES
_ITEMS_A_TURN: Final = 100

# Log events; see docs/reference/logs.md.
CHARGED: Final = "charge.succeeded"
REPLAYED: Final = "charge.replayed"
INSUFFICIENT: Final = "charge.insufficient_balance"
REFUSED: Final = "charge.refused"

_REPLAY_HEADERS: Final = {"Idempotent-Replayed": "true"}
_COMMON: Final = (*guards.PROBLEMS, "validation", "overloaded", "database-unavailable")


@router.post(
    "/charge",
    response_model=ChargeOut,
    summary="Take money from a user's balance, exactly once",
    responses={200: REPLAYABLE}
    | documented(
        *_COMMON, "idempotency-key-invalid", "idempotency-key-reused", "insufficient-balance",
        "user-not-found", "body-too-large", "outcome-unknown", "account-limit",
    ),
    openapi_extra=takes(ChargeIn, _KEY) | guards.SECURITY,
)  # fmt: skip
async def post_charge(request: Request) -> Response:
    started = perf_counter()
    try:
        caller = await guards.require(request, _SCOPE)
        value = decode(await body_of(request))
        body = validate(value, ChargeIn)
        key = parse_uuid_key(sent_keys(request.scope["headers"]))
        if key is None:
            check_misplaced(value, request.scope["headers"])
        command = body.to_command(caller, key)
        batcher: Batcher = request.app.state.batcher
        answer = _answer(command, await batcher.charge(command, hung_up(request.scope)))
    except ClientDisconnect:
        raise  # in the middle of the body: nobody was answered, so nothing is counted
    except Exception as error:
        _count(error)
        _time(started)
        raise
    _time(started)
    return answer


def _answer(command: ChargeCommand, decision: Decision) -> Response:
    _log(command, decision)
    match decision:
        case Approved(charge):
            metrics.charge_succeeded.inc()
            return Json(charge_json(charge))
        case Replayed(charge):
            metrics.charge_replayed.inc()
            return Json(charge_json(charge), headers=_REPLAY_HEADERS)
        case Declined(reason):
            raise reason


def _count(error: Exception) -> None:
    """Every answer above 399 once, our own failures too."""
    insufficient = isinstance(error, InsufficientFunds)
    (metrics.charge_insufficient if insufficient else metrics.charge_failed).inc()


def _time(started: float) -> None:
    metrics.charge_latency.observe(perf_counter() - started)


def _log(command: ChargeCommand, decision: Decision) -> None:
    event, fields = _event(command, decision)
    log_all(event, [fields])


def _log_all(commands: Sequence[ChargeCommand], decisions: Sequence[Decision]) -> None:
    rows: dict[str, list[dict[str, object]]] = {}
    for command, decision in zip(commands, decisions, strict=True):
        event, fields = _event(command, decision)
        rows.setdefault(event, []).append(fields)
    for event, of_event in rows.items():
        log_all(event, of_event)


def _event(command: ChargeCommand, decision: Decision) -> tuple[str, dict[str, object]]:
    match decision:
        case Approved(charge):
            return CHARGED, {"transaction_id": charge.id, "user_id": charge.user_id}
        case Replayed(charge):
            return REPLAYED, {"idempotency_key": charge.key, "transaction_id": charge.id}
        case Declined(reason) if isinstance(reason, InsufficientFunds):
            money = command.money
            fields = {"amount": money.text, "currency": money.currency}
            return INSUFFICIENT, {"user_id": command.user_id, **fields}
        case Declined(reason):
            return REFUSED, {"user_id": command.user_id, "code": reason.code}


@router.post(
    "/v1/charges/batch",
    response_model=ChargeBatchOut,
    summary="Up to 5000 charges, each standing alone, answered in order",
    responses=documented(*_COMMON, "idempotency-key-invalid", "body-too-large"),
    openapi_extra=takes(ChargeBatchIn) | guards.SECURITY,
)
async def post_batch(request: Request) -> Response:
    caller = await guards.require(request, _SCOPE)
    body = await body_of(request)
    turns: BulkTurns = request.app.state.bulk_turns
    gone = hung_up(request.scope)
    async with turns.reading(gone):
        read: list[ChargeCommand | str] = []
        async for items in _by_turns(parse(body, ChargeBatchIn).charges):
            if (plain := plain_items(items)) is not None:
                read += [_read(plain_command, item, caller) for item in plain]
            else:
                read += [_read(_command, item, caller) for item in items]
    commands = [item for item in read if isinstance(item, ChargeCommand)]
    if sent_keys(request.scope["headers"]) and any(command.key is None for command in commands):
        raise KeyInvalid("each charge of a batch has a key of its own, in `idempotency_key`")
    batcher: Batcher = request.app.state.batcher
    decisions = await batcher.charge_many(commands, gone)
    async with turns.rendering():
        _log_all(commands, decisions)
        _count_all(decisions)
        metrics.charge_failed.inc(len(read) - len(commands))
        if gone():
            raise ClientDisconnect
        results, decided = list[str](), iter(decisions)
        async for items in _by_turns(read):
            results += [i if isinstance(i, str) else _result(next(decided)) for i in items]
        answer = f'{{"results":[{",".join(results)}]}}'
    return Json(answer.encode())


async def _by_turns(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """So many at a time, with a turn for other requests between: nobody waits for a whole batch."""
    for first in range(0, len(items), _ITEMS_A_TURN):
        await asyncio.sleep(0)
        yield items[first : first + _ITEMS_A_TURN]


def _count_all(decisions: Sequence[Decision]) -> None:
    kinds = Counter(map(type, decisions))
    metrics.charge_succeeded.inc(kinds[Approved])
    metrics.charge_replayed.inc(kinds[Replayed])
    for decision in decisions:
        if isinstance(decision, Declined):
            _count(decision.reason)


def _read(
    to_command: Callable[[T, Caller], ChargeCommand], item: T, caller: Caller
) -> ChargeCommand | str:
    """What the item asks for, or its result if it is not valid."""
    try:
        return to_command(item, caller)
    except Refused as refused:
        return _rejected(refused)


def _command(item: object, caller: Caller) -> ChargeCommand:
    read = validate(item, BatchItemIn)
    if read.idempotency_key is None:
        check_misplaced(item)
    return read.to_item_command(caller)


def _rejected(refused: Refused) -> str:
    return dump(BatchResultOut("rejected", problem=document(refused))).decode()


def _result(decision: Decision) -> str:
    if isinstance(decision, Declined):
        return dump(BatchResultOut("declined", problem=document(decision.reason))).decode()
    status = "success" if isinstance(decision, Approved) else "replayed"
    return result_json(status, decision.charge)


@router.get(
    "/v1/charges",
    response_model=ChargePageOut,
    summary="The merchant's charges, newest first",
    responses=documented(*guards.PROBLEMS, "validation", "cursor-invalid", "database-unavailable"),
    openapi_extra=guards.SECURITY,
)
async def list_charges(
    request: Request,
    query: Annotated[ChargeQuery, Query()],
    caller: Annotated[Caller, Depends(guards.guard(Scope.CHARGES))],
) -> Response:
    db: Db = request.app.state.db
    wanted = Filter(
        query.user_id,
        query.currency,
        query.created_after,
        query.created_before,
        decode_cursor(query.cursor, UUID),
    )
    found = await service.page(db, caller.merchant_id, wanted, query.limit)
    of = ListedChargeOut.of
    return Json(limited_page(found, query.limit, of, lambda listed: listed.charge.id))


@router.get(
    "/v1/charges/{charge_id}",
    response_model=ListedChargeOut,
    summary="One charge",
    responses=documented(
        *guards.PROBLEMS, "charge-not-found", "validation", "database-unavailable"
    ),
    openapi_extra=guards.SECURITY,
)
async def get_charge(
    request: Request,
    charge_id: UUID,
    caller: Annotated[Caller, Depends(guards.guard(Scope.CHARGES))],
) -> Response:
    db: Db = request.app.state.db
    found = await service.show(db, caller.merchant_id, charge_id)
    return Json(ListedChargeOut.of(found))


# Declared above for the document, and called by the edge, past the framework's layers.
HOT: Final = {("POST", "/charge"): post_charge, ("POST", "/v1/charges/batch"): post_batch}
