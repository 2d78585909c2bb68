"""What every request passes through: its id, its size limit, and one line of HTTP metrics.

Pure ASGI: Starlette's `BaseHTTPMiddleware` would cost 194 µs a request, this costs a few. The
hottest routes are called from here: on its way through the framework's layers a request costs
more than deciding its charge.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picopay.infra import draining, metrics, problems
from picopay.infra.db import CommitInDoubt, ConnectionLost, DatabaseUnavailable
from picopay.infra.doors import Doors
from picopay.infra.headers import REQUEST_ID, SECURITY_HEADERS
from picopay.infra.ids import new_id_text
from picopay.infra.logs import log, request_id_var
from picopay.infra.protocol import hung_up
from picopay.infra.sqlstates import WAITED, sqlstate
from picopay.kernel.errors import Overloaded, Refused

BODY_BYTES_MAX: Final = 64 * 1024
BATCH_BODY_BYTES_MAX: Final = 1024 * 1024
BATCH_PATH: Final = "/v1/charges/batch"


class Interrupted(Refused):
    """Whether it was done is unknown to its caller: repeat it with its key, or look it up."""

    code = "outcome-unknown"


Endpoint = Callable[[Request], Awaitable[Response]]


class Edge:
    """Outermost layer of the application; nothing below it can answer without passing here.

    `inner` are the framework's layers below; `hot` maps (method, path) to endpoints that take
    the request and return the response. `doors` are for `HttpProtocol`, which knows no other.
    """

    def __init__(
        self,
        app: Starlette,
        inner: ASGIApp,
        hot: Mapping[tuple[str, str], Endpoint],
        doors: Doors,
    ) -> None:
        self.doors = doors
        self._app = app
        self._inner = inner
        self._hot = hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self._app
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        token = request_id_var.set(exchange.request_id.decode())
        try:
            endpoint = self._hot.get((scope["method"], scope["path"]))
            if endpoint is None:
                await self._inner(scope, exchange.receive, exchange.send)
            else:
                response = await endpoint(Request(scope, exchange.receive))
                await response(scope, exchange.receive, exchange.send)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - none above knows better
            if not isinstance(error, ClientDisconnect):  # amid the body: nobody is left
                await exchange.answer(_told(error, scope["path"]))
        finally:
            request_id_var.reset(token)


def _told(error: BaseException, path: str) -> Refused:
    match error:
        case Refused():
            return error
        case asyncio.CancelledError():  # the server is ending, and has waited long enough
            return Interrupted("the server ended while it was at work on this")
        case ConnectionLost() | CommitInDoubt():
            return DatabaseUnavailable("the connection to the database was lost")
        case _ if sqlstate(error) in WAITED:
            return Overloaded("what this needs is locked by somebody else")
        case _:
            log.error("http.unhandled", path=path, exc_info=error)
            return problems.InternalError("the error has been logged")


class _Exchange:
    """One request and its answer: wraps what the server gives us to read and to write with."""

    __slots__ = ("_bytes_left", "_receive", "_scope", "_send", "_started", "request_id")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = False
        self._bytes_left = BATCH_BODY_BYTES_MAX if scope["path"] == BATCH_PATH else BODY_BYTES_MAX
        self.request_id = new_id_text().encode()
        for name, value in scope["headers"]:
            if name == b"x-request-id" and REQUEST_ID.fullmatch(told := value.strip(b" \t")):
                self.request_id = told
            elif name == b"content-length" and _length(value) > self._bytes_left:
                # Told before a byte of it is read.
                self._bytes_left = -1

    async def receive(self) -> Message:
        self._refuse_excess()
        try:
            message = await self._receive()
        except (OSError, RuntimeError):
            if not self._gone():
                raise
            return {"type": "http.disconnect"}
        if message["type"] == "http.request":
            self._bytes_left -= len(message.get("body", b""))
            self._refuse_excess()
        return message

    def _refuse_excess(self) -> None:
        if self._bytes_left < 0:
            raise problems.BodyTooLarge("the body is larger than this route takes")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id),
                *SECURITY_HEADERS,
            ]
            if draining.has_begun():  # the next request is for another server
                message["headers"].append((b"connection", b"close"))
            _count(self._scope["method"], message["status"])
        try:
            await self._send(message)
        except (OSError, RuntimeError):
            if not self._gone():
                raise

    def _gone(self) -> bool:
        """What a closed connection refuses is no error of ours: the client has hung up."""
        return hung_up(self._scope)()

    async def answer(self, refused: Refused) -> None:
        """The problem document, unless an answer is already under way."""
        if not self._started:
            await problems.response(refused)(self._scope, self._receive, self.send)


def _length(declared: bytes) -> int:
    """What a header promises; one that is no number promises nothing, the body is counted."""
    return int(declared[:19]) if declared.isdigit() else 0


_METHODS: Final = frozenset({"GET", "POST", "PATCH", "DELETE", "HEAD", "PUT", "OPTIONS"})
_counters: dict[tuple[str, int], metrics.Counter] = {}


def _count(method: str, status: int) -> None:
    counter = _counters.get((method, status))
    if counter is None:
        known = method if method in _METHODS else "other"
        counter = metrics.http_requests.labels(known, str(status))
        if known == method:  # a made-up method must not grow the table
            _counters[method, status] = counter
    counter.inc()
