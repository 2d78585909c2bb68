"""The HTTP application, put together: the only file, with the commands, that knows every slice."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from secrets import SystemRandom
from time import time
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from picopay import __version__
from picopay.access import guards
from picopay.access import service as access
from picopay.access.keyring import Keyring
from picopay.access.limits import Limits
from picopay.audit import auditors
from picopay.catalog import routes as catalog
from picopay.charges import refunds_routes as refunds
from picopay.charges import routes as charges
from picopay.charges.batcher import Batcher
from picopay.charges.bulk import BulkTurns
from picopay.charges.turns import Turns
from picopay.fake_payments import routes as fake_payments
from picopay.idempotency.cache import ReplayCache
from picopay.infra import metrics, operations, problems, tracing
from picopay.infra.db import Db
from picopay.infra.doors import Door, Doors, line
from picopay.infra.json import dump
from picopay.infra.middleware import Edge
from picopay.infra.redis import Fast
from picopay.infra.settings import Settings
from picopay.infra.traced import Traced
from picopay.kernel.errors import Invalid
from picopay.ledger import routes as ledger
from picopay.orders import refunds_routes as order_refunds
from picopay.orders import routes as orders
from picopay.orders.batcher import Batcher as Orders
from picopay.orders.batcher import Settler
from picopay.orders.model import Provider, Shop
from picopay.outbox import routes as dead_letters
from picopay.outbox.bell import Announcer, Bell, Rings
from picopay.outbox.chores import Sampler
from picopay.transfers import routes as transfers
from picopay.transfers.batcher import Batcher as Webhooks
from picopay.users import routes as users
from picopay.worker import Worker

ASSETS = Path(__file__).parent / "assets"
VENDOR = Path(fastapi_offline.__file__).parent / "static"
# The one thing that ReDoc would fetch from elsewhere: its maker's logo.
REDOC, REDOC_LOGO = "redoc.standalone.js", b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_ROUTERS = (
    charges.router,
    refunds.router,
    users.router,
    ledger.router,
    transfers.router,
    fake_payments.router,
    catalog.router,
    orders.router,
    order_refunds.router,
    dead_letters.router,
    operations.router,
)
_HOT = charges.HOT | orders.HOT | transfers.HOT
_TOO_LONG = "The target is longer than 8 KiB: told without a body, and the connection is closed."
DESCRIPTION = "Exactly-once charges on a double-entry ledger. Errors are RFC 9457 problems."


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; its connections are opened when it starts and closed when it stops."""
    settings = settings or Settings()
    app = FastAPI(
        title="PicoPay Payment Engine",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=_lifespan,
        docs_url=None,
        redirect_slashes=False,
        redoc_url=None,
        telemetry={"tracing": False},
        openapi_url=None,
    )
    app.state.settings = settings
    for router in _ROUTERS:
        # As they were made when their module was read: included, they would all be made again.
        app.router.routes.extend(router.routes)
    app.openapi = lambda: _openapi(app)
    if settings.api_docs:
        _add_docs(app)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    # The edge stands in for the framework's own last resort, which would answer before it.
    last_resort = app.build_middleware_stack()
    assert isinstance(last_resort, ServerErrorMiddleware)
    doors: dict[bytes, Door] = {}  # filled when the queues behind them are made
    app.state.doors = doors
    edge = Edge(app, last_resort.app, _HOT, doors)
    inner = Traced(edge, _HOT) if tracing.is_on() else edge
    app.middleware_stack = _for_browsers(inner, settings.allowed_origins)
    return app


class _ForBrowsers(CORSMiddleware):
    """What is behind has doors, at which no request of a browser's is refused."""

    doors: Doors


def _for_browsers(edge: Edge | Traced, allowed: Sequence[str]) -> ASGIApp:
    """Around the edge, which answers by itself. Nothing of a browser's own, no cookie, lets in.

    The admin secret is not among the headers: no page of another origin is for administrators.
    """
    if not allowed:
        return edge
    layer = _ForBrowsers(
        edge,
        allow_origins=allowed,
        allow_methods=["GET", "POST"],
        allow_headers=["Content-Type", "X-API-Key", "Idempotency-Key", "X-Request-ID"],
        expose_headers=[
            *("Idempotent-Replayed", "X-Request-ID", "Link"),
            *("Retry-After", "RateLimit", "RateLimit-Policy"),
        ],
    )
    layer.doors = edge.doors
    return layer


def server_app(settings: Settings) -> ASGIApp:
    """What a server runs: the edge itself, past what the framework does before its own layers."""
    outermost = create_app(settings).middleware_stack
    assert outermost is not None
    return outermost


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    settings: Settings = app.state.settings
    state = app.state
    state.db, state.reserved = Db.of(settings), Db.reserved(settings)
    state.redis = _redis(settings)
    pepper = await access.pepper(state.reserved)
    state.keyring = Keyring(state.reserved, pepper, settings.app_api_key)
    state.limits = Limits(state.redis, pepper)
    state.trusted = settings.trusted_networks
    identify = partial(state.reserved.identity, pepper)
    replays = ReplayCache(state.redis, identify, pepper, ttl_seconds=settings.cache_ttl)
    await replays.bind()
    state.db.on_lost = state.reserved.on_lost = replays.doubt
    state.bell, background = _background(settings, state.reserved)
    delay_seconds = settings.transaction_processing_delay_seconds
    state.transfers = Webhooks(state.reserved, state.bell, delay_seconds=delay_seconds)
    shop = Shop(Provider(settings.provider), settings.shop_currency)
    state.orders = Orders(state.reserved, shop, state.bell)
    state.settler = Settler(state.reserved, state.bell)
    state.now, state.chance = time, SystemRandom().random
    state.bulk_turns = BulkTurns()
    state.refund_turns = Turns()
    state.batcher = Batcher(state.reserved, replays, queue_max=settings.charge_queue_max)
    state.doors.update(_doors(state))
    watchers = [Sampler(state.db), *auditors(settings)]
    try:
        yield
    finally:
        # Requests have been answered by now; what they left behind is finished in order.
        gatherers = (state.batcher, state.transfers, state.orders, state.settler)
        await asyncio.gather(*(gatherer.close() for gatherer in gatherers))
        await asyncio.gather(background.stop(), *(watcher.stop() for watcher in watchers))
        await asyncio.gather(replays.close(), state.limits.close())
        await state.keyring.close()
        if state.redis is not None:
            await state.redis.close()
        await asyncio.gather(state.db.close(), state.reserved.close())
        await asyncio.to_thread(tracing.stop)


def _doors(state: State) -> Doors:
    """Where a full queue refuses at once. Of bulk requests there are few: theirs refuses itself."""
    return {
        line("POST", "/charge"): Door(state.batcher.full, metrics.charge_failed.inc),
        line("POST", "/orders"): Door(state.orders.full, _uncounted),
        line("POST", "/payments/callback"): Door(state.settler.full, _uncounted),
        line("POST", "/v1/webhooks/transactions"): Door(state.transfers.full, _uncounted),
    }


def _uncounted(_refused: int) -> None:
    """These routes count only what they accept."""


def _background(settings: Settings, db: Db) -> tuple[Rings, Worker | Announcer]:
    """Who is told of new events, and who sees to them: a worker of our own, or others' workers."""
    if settings.picopay_worker:
        bell = Bell()
        return bell, Worker(settings, bell)
    announcer = Announcer(db)
    return announcer, announcer


def _redis(settings: Settings) -> Fast | None:
    if settings.redis_url is None:
        return None
    return Fast(settings.redis_url, budget_seconds=settings.redis_timeout_ms / 1000)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        (".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0]), str(item["msg"]))
        for item in error.errors()
    ]
    return problems.response(Invalid.of(*errors))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:  # noqa: PLR2004 - the status is its own name
        response = problems.response(problems.MethodNotAllowed(f"{request.method} {path}"))
        response.headers.update(error.headers or {})
        return response
    if error.status_code == 404:  # noqa: PLR2004 - likewise
        return problems.response(problems.NotFound(f"there is nothing at {path}"))
    return problems.response(Invalid(str(error.detail)))


def _add_docs(app: FastAPI) -> None:
    """Swagger UI and ReDoc from our own files: no CDN, and no inline script."""
    redoc = (VENDOR / REDOC).read_bytes().replace(REDOC_LOGO, b"data:,")
    pages = {
        "/docs": ((ASSETS / "docs.html").read_bytes(), "text/html"),
        "/redoc": ((ASSETS / "redoc.html").read_bytes(), "text/html"),
        f"/docs/vendor/{REDOC}": (redoc, "text/javascript"),
    }
    for path, page in pages.items():
        app.add_route(path, _page(*page), include_in_schema=False)
    app.add_route("/openapi.json", _document(app), include_in_schema=False)
    app.mount("/docs/vendor", StaticFiles(directory=VENDOR))
    app.mount("/docs/assets", StaticFiles(directory=ASSETS))


def _document(app: FastAPI) -> Any:  # noqa: ANN401 - a Starlette endpoint
    """Rendered once: anybody may ask for it, and all others would wait for each rendering."""
    rendered = cache(lambda: dump(app.openapi()))

    async def serve(_request: Request) -> Response:
        return Response(rendered(), media_type="application/json")

    return serve


def _page(content: bytes, media_type: str) -> Any:  # noqa: ANN401 - a Starlette endpoint
    async def serve(_request: Request) -> Response:
        return Response(content, media_type=media_type)

    return serve


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            license_info=app.license_info,
        )
        components = document.setdefault("components", {})
        components["securitySchemes"] = guards.SECURITY_SCHEMES
        components.setdefault("schemas", {})["Problem"] = problems.SCHEMA
        components["headers"] = problems.HEADERS
        for item in document["paths"].values():
            for operation in item.values():
                _add_request_id(operation["responses"])
                if any(
                    given["in"] in ("path", "query") for given in operation.get("parameters", ())
                ):
                    operation["responses"]["414"] = {"description": _TOO_LONG}
        app.openapi_schema = document
    return app.openapi_schema


def _add_request_id(responses: dict[str, dict[str, Any]]) -> None:
    """The edge puts it on whatever is answered."""
    for response in responses.values():
        headers = response.setdefault("headers", {})
        headers["X-Request-ID"] = {"$ref": "#/components/headers/X-Request-ID"}
