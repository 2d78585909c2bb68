"""A span for each request, around the edge; in place only while tracing is on."""

from collections.abc import Collection
from typing import Final

from opentelemetry.trace import Span, StatusCode
from starlette.types import Message, Receive, Scope, Send

from picopay.infra import tracing
from picopay.infra.middleware import Edge

# Asked again and again, and never of interest.
_PROBES: Final = frozenset({"/", "/health", "/healthz", "/livez", "/readyz", "/metrics"})
_METHODS: Final = frozenset({"GET", "POST", "PATCH", "DELETE", "HEAD", "PUT", "OPTIONS"})


class Traced:
    """`hot` are the (method, path) that the edge calls past the framework, which names no route.

    What is refused at the edge's doors makes no span.
    """

    def __init__(self, inner: Edge, hot: Collection[tuple[str, str]]) -> None:
        self._inner = inner
        self.doors = inner.doors
        self._hot = hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._inner(scope, receive, send)
            return
        with tracing.request(_traceparent(scope)) as span:

            async def told(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _note(span, message["status"])
                await send(message)

            try:
                await self._inner(scope, receive, told)
            finally:
                self._name(span, scope)

    def _name(self, span: Span, scope: Scope) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        hot = (scope["method"], scope["path"]) in self._hot
        route = scope["path"] if hot else getattr(scope.get("route"), "path", None)
        span.set_attribute("http.request.method", method)
        if route is None:  # a path is whatever its sender writes
            span.update_name(method)
        else:
            span.set_attribute("http.route", route)
            span.update_name(f"{method} {route}")


def _traceparent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return value.decode("latin-1")
    return None


def _note(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:  # noqa: PLR2004 - our own fault
        span.set_status(StatusCode.ERROR)
