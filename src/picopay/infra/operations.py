"""HTTP edge for those who run the system: health, readiness, metrics, problem types."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from picopay.infra import draining, metrics
from picopay.infra.db import ConnectionLost, Db
from picopay.infra.json import Json
from picopay.infra.problems import PROBLEMS, NotFound, documented
from picopay.infra.redis import Fast
from picopay.infra.settings import Settings
from picopay.kernel.errors import Refused

EndpointT = TypeVar("EndpointT", bound=Callable[..., Awaitable[Response]])

router = APIRouter(tags=["Operations"])

PROBE_TIMEOUT_SECONDS: Final = 2


def _answers_head(path: str) -> Callable[[EndpointT], EndpointT]:
    """Load balancers ask with HEAD; the document tells of GET, and the server drops the body.

    Below `router.get`, so that this route is the first to match, and names both in `Allow`.
    """
    return router.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)


@dataclass(frozen=True, slots=True)
class RootOut:
    status: Literal["HEALTHY"]
    current_time: datetime


@dataclass(frozen=True, slots=True)
class StatusOut:
    status: str


@dataclass(frozen=True, slots=True)
class HealthOut:
    status: Literal["healthy", "degraded", "unhealthy", "draining"]
    database: Literal["connected", "disconnected"]
    redis: Literal["connected", "disconnected", "not configured"]


@dataclass(frozen=True, slots=True)
class ProblemTypeOut:
    code: str
    title: str
    status: int


@router.get("/", response_model=RootOut, summary="Alive, and what time it is")
@_answers_head("/")
async def get_root() -> Response:
    return Json(RootOut("HEALTHY", datetime.now(UTC)))  # noqa: TID251 - the time is the answer


@router.get("/health", response_model=StatusOut, summary="The process answers")
@_answers_head("/health")
async def get_health() -> Response:
    return Json(StatusOut("healthy"))


@router.get("/livez", response_model=StatusOut, summary="Liveness: never asks the database")
@_answers_head("/livez")
async def get_livez() -> Response:
    return Json(StatusOut("alive"))


_NOT_READY: Final = ("unhealthy", "draining")
_HEALTH: Final = {503: {"model": HealthOut, "description": "PostgreSQL cannot be reached."}}


@router.get(
    "/healthz",
    response_model=HealthOut,
    summary="PostgreSQL and Redis; without Redis merely degraded",
    responses={**_HEALTH},
)
@_answers_head("/healthz")
async def get_healthz(request: Request) -> Response:
    return _health_response(await _health(request))


@router.get(
    "/readyz",
    response_model=HealthOut,
    summary="Readiness: fails while PostgreSQL is gone, and before the server ends",
    responses={**_HEALTH},
)
@_answers_head("/readyz")
async def get_readyz(request: Request) -> Response:
    health = await _health(request)
    if draining.has_begun():
        health = replace(health, status="draining")
    return _health_response(health)


async def _health(request: Request) -> HealthOut:
    db: Db = request.app.state.reserved
    redis: Fast | None = request.app.state.redis
    database = await _within(_answers(db))
    if redis is None:
        return HealthOut(*_verdict(database), "not configured")
    fast = await _within(redis.ping())
    status, connected = _verdict(database)
    if status == "healthy" and not fast:
        status = "degraded"
    return HealthOut(status, connected, "connected" if fast else "disconnected")


def _verdict(
    database: bool,  # noqa: FBT001 - the one thing asked
) -> tuple[Literal["healthy", "degraded", "unhealthy"], Literal["connected", "disconnected"]]:
    return ("healthy", "connected") if database else ("unhealthy", "disconnected")


async def _answers(db: Db) -> bool:
    """Asks again after a connection that broke while idle: that one tells of the past."""
    with suppress(ConnectionLost):
        return await db.ping()
    return await db.ping()


async def _within(probe: Awaitable[bool]) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
            return await probe
    except Exception:  # noqa: BLE001 - whatever went wrong, the answer is no
        return False


def _health_response(health: HealthOut) -> Response:
    return Json(health, status_code=503 if health.status in _NOT_READY else 200)


@router.get(
    "/metrics",
    summary="Prometheus metrics of all server processes",
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented("metrics-token-invalid"),
    },
    response_class=Response,
)
async def get_metrics(request: Request) -> Response:
    _require_token(request)
    content, media_type = metrics.page()
    return Response(content, headers={"content-type": media_type})


class MetricsTokenInvalid(Refused):
    code = "metrics-token-invalid"


def _require_token(request: Request) -> None:
    """Raises `MetricsTokenInvalid`, if a METRICS_TOKEN is set."""
    settings: Settings = request.app.state.settings
    if settings.metrics_token is None:
        return
    told = [value for name, value in request.scope["headers"] if name == b"authorization"]
    wanted = f"Bearer {settings.metrics_token}".encode()
    if len(told) != 1 or not hmac.compare_digest(told[0], wanted):
        raise MetricsTokenInvalid("send the server's METRICS_TOKEN as a bearer token")


@router.get(
    "/problems/{code}",
    response_model=ProblemTypeOut,
    summary="What a problem's `type` stands for",
    responses=documented("not-found"),
)
async def get_problem(code: str) -> Response:
    if code not in PROBLEMS:
        raise NotFound(f"there is no problem type {code!r}")
    status, title = PROBLEMS[code]
    return Json(ProblemTypeOut(code, title, status))
