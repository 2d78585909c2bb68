"""HTTP edge of dead letters, for operators."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from picopay.access import guards
from picopay.access.model import Caller, Scope
from picopay.infra.db import Db
from picopay.infra.json import Json, body_of, parse
from picopay.infra.problems import documented
from picopay.infra.routing import decode_cursor, limited_page, takes
from picopay.outbox import dead_letters
from picopay.outbox.model import Note, Resolution
from picopay.outbox.schemas import (
    DeadLetterFullOut,
    DeadLetterOut,
    DeadLetterPageOut,
    DeadLetterQuery,
    ReplayIn,
    ResolvedOut,
    ResolveIn,
)

router = APIRouter(prefix="/v1/admin/dead-letters", tags=["Dead letters"])

_Caller = Annotated[Caller, Depends(guards.guard(Scope.ADMIN))]
_COMMON: Final = (*guards.PROBLEMS, "validation", "database-unavailable")


@router.get(
    "",
    response_model=DeadLetterPageOut,
    summary="Events that were given up, newest first",
    responses=documented(*_COMMON, "cursor-invalid"),
    openapi_extra=guards.SECURITY,
)
async def list_dead_letters(
    request: Request, query: Annotated[DeadLetterQuery, Query()], _caller: _Caller
) -> Response:
    db: Db = request.app.state.db
    after = decode_cursor(query.cursor, UUID)
    chosen = query.to_chosen()
    found = await dead_letters.page(db, chosen, after, query.limit, resolved=query.resolved)
    return Json(limited_page(found, query.limit, DeadLetterOut.of, lambda letter: letter.id))


@router.get(
    "/{letter_id}",
    response_model=DeadLetterFullOut,
    summary="One, with what its event says",
    responses=documented(*_COMMON, "dead-letter-not-found"),
    openapi_extra=guards.SECURITY,
)
async def get_dead_letter(request: Request, letter_id: UUID, _caller: _Caller) -> Response:
    db: Db = request.app.state.db
    return Json(DeadLetterFullOut.of(*await dead_letters.show(db, letter_id)))


@router.post(
    "/replay",
    response_model=ResolvedOut,
    summary="Hand them to their consumers once more",
    responses=documented(*_COMMON, "body-too-large"),
    openapi_extra=takes(ReplayIn) | guards.SECURITY,
)
async def post_replay(request: Request, caller: _Caller) -> Response:
    body = parse(await body_of(request), ReplayIn)
    return await _resolve(request, caller, body, Resolution.REPLAYED, body.per_second)


@router.post(
    "/discard",
    response_model=ResolvedOut,
    summary="Give them up for good",
    responses=documented(*_COMMON, "body-too-large"),
    openapi_extra=takes(ResolveIn) | guards.SECURITY,
)
async def post_discard(request: Request, caller: _Caller) -> Response:
    body = parse(await body_of(request), ResolveIn)
    return await _resolve(request, caller, body, Resolution.DISCARDED, None)


async def _resolve(
    request: Request,
    caller: Caller,
    body: ResolveIn,
    resolution: Resolution,
    per_second: float | None,
) -> Response:
    db: Db = request.app.state.db
    chosen = body.to_chosen()
    if body.dry_run:
        return Json(ResolvedOut(await dead_letters.count(db, chosen), 0, dry_run=True))
    actor = f"key:{caller.key_id or 'bootstrap'}"
    note = Note(actor, resolution, body.note, per_second)
    done = await dead_letters.resolve(db, chosen, note)
    return Json(ResolvedOut(done, done, dry_run=False))
