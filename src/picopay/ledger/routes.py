"""HTTP edge of the ledger: balances and statements of any owner."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from picopay.access import guards
from picopay.access.model import Caller, Scope
from picopay.infra.db import Db
from picopay.infra.json import Json
from picopay.infra.problems import documented
from picopay.infra.routing import decode_cursor, page_of
from picopay.ledger import service
from picopay.ledger.rules import TOTAL_MAX, bounds_below
from picopay.ledger.schemas import (
    AccountsOut,
    EntryOut,
    StatementOut,
    StatementQuery,
    balances_of,
)

router = APIRouter(prefix="/v1/accounts", tags=["Ledger"])

_Caller = Annotated[Caller, Depends(guards.guard(Scope.LEDGER))]
_Owner = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,200}$", examples=["merchant:default"])]
_PROBLEMS = (
    *guards.PROBLEMS,
    "account-not-found",
    "validation",
    "overloaded",
    "database-unavailable",
)


@router.get(
    "/{owner:name}/entries",
    response_model=StatementOut,
    summary="An owner's statement, newest first",
    responses=documented(*_PROBLEMS, "cursor-invalid"),
    openapi_extra=guards.SECURITY,
)
async def get_entries(
    request: Request, owner: _Owner, query: Annotated[StatementQuery, Query()], _caller: _Caller
) -> Response:
    db: Db = request.app.state.db
    await service.accounts_of(db, owner)
    return await statement(db, owner, query)


@router.get(
    "/{owner:name}",
    response_model=AccountsOut,
    summary="An owner's balances, one for each currency",
    responses=documented(*_PROBLEMS),
    openapi_extra=guards.SECURITY,
)
async def get_account(request: Request, owner: _Owner, _caller: _Caller) -> Response:
    db: Db = request.app.state.db
    return Json(AccountsOut(owner, balances_of(await service.accounts_of(db, owner))))


async def statement(db: Db, owner: str, query: StatementQuery) -> Response:
    """A page of the owner's statement; empty when no money has moved."""
    asked = decode_cursor(query.cursor, _bounds) or {}
    found, bounds = await service.statement(db, owner, query.currency, asked, query.limit)
    shown = found[: query.limit]
    position = bounds_below(shown, bounds)
    entries = [EntryOut.of(entry) for entry in shown]
    return Json(page_of(entries, has_more=len(found) > query.limit, position=position))


def _bounds(position: Any) -> dict[str, int]:  # noqa: ANN401 - whatever a caller has sent
    bounds = {str(currency): int(version) for currency, version in position.items()}
    if not bounds or not all(0 < version <= TOTAL_MAX for version in bounds.values()):
        raise ValueError(bounds)
    return bounds
