"""HTTP edge of users: create, deposit, balances, statement."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from picopay.access import guards
from picopay.access.model import Caller, Scope
from picopay.idempotency.rules import check_misplaced, parse_key, sent_keys
from picopay.infra.db import Db
from picopay.infra.json import Json, body_of, decode, parse, validate
from picopay.infra.problems import documented
from picopay.infra.routing import REPLAYABLE, USER_ID_MAX, header, takes
from picopay.ledger.model import user_owner
from picopay.ledger.routes import statement
from picopay.ledger.schemas import StatementOut, StatementQuery
from picopay.users import service
from picopay.users.schemas import DepositIn, DepositOut, UserIn, UserOut

router = APIRouter(prefix="/v1/users", tags=["Users"])

_Caller = Annotated[Caller, Depends(guards.guard(Scope.USERS))]
_UserId = Annotated[int, Path(ge=1, le=USER_ID_MAX)]
_COMMON: Final = (*guards.PROBLEMS, "validation", "overloaded", "database-unavailable")
_KEY: Final = header(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "Makes a retry safe: the same key deposits once.",
)


@router.post(
    "",
    response_model=UserOut,
    status_code=201,
    summary="Create a user",
    responses={200: {"model": UserOut, "description": "The user was there already."}}
    | documented(*_COMMON, "body-too-large"),
    openapi_extra=takes(UserIn) | guards.SECURITY,
)
async def post_user(request: Request, _caller: _Caller) -> Response:
    db: Db = request.app.state.db
    made, created = await service.create(db, parse(await body_of(request), UserIn).id)
    user, accounts = await service.show(db, made.id)
    return Json(UserOut.of(user, accounts), status_code=201 if created else 200)


@router.get(
    "/{user_id}",
    response_model=UserOut,
    summary="A user and the balances",
    responses=documented(*_COMMON, "user-not-found"),
    openapi_extra=guards.SECURITY,
)
async def get_user(request: Request, user_id: _UserId, _caller: _Caller) -> Response:
    db: Db = request.app.state.db
    return Json(UserOut.of(*await service.show(db, user_id)))


@router.post(
    "/{user_id}/deposits",
    response_model=DepositOut,
    status_code=201,
    summary="Deposit money from outside, once for each key",
    responses={201: REPLAYABLE}
    | documented(
        *_COMMON, "user-not-found", "idempotency-key-invalid", "idempotency-key-reused",
        "account-limit", "body-too-large",
    ),
    openapi_extra=takes(DepositIn, _KEY) | guards.SECURITY,
)  # fmt: skip
async def post_deposit(request: Request, user_id: _UserId, caller: _Caller) -> Response:
    db: Db = request.app.state.db
    value = decode(await body_of(request))
    body, key = validate(value, DepositIn), parse_key(sent_keys(request.scope["headers"]))
    if key is None:
        check_misplaced(value, request.scope["headers"])
    deposit = await service.deposit(db, body.to_command(caller, user_id, key))
    headers = {"Idempotent-Replayed": "true"} if deposit.replayed else None
    return Json(DepositOut.of(deposit), status_code=201, headers=headers)


@router.get(
    "/{user_id}/entries",
    response_model=StatementOut,
    summary="A user's statement, newest first",
    responses=documented(*_COMMON, "user-not-found", "cursor-invalid"),
    openapi_extra=guards.SECURITY,
)
async def get_entries(
    request: Request, user_id: _UserId, query: Annotated[StatementQuery, Query()], _caller: _Caller
) -> Response:
    db: Db = request.app.state.db
    await service.show(db, user_id)
    return await statement(db, user_owner(user_id), query)
