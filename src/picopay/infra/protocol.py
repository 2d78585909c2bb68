"""HTTP/1.1 as uvicorn speaks it, with three things that it lacks.

A bound on what a request may say besides its body: one long header or trailer, sent without any
key, would be gathered and copied until the process stood still. One system call for an answer, not
two. And a cheap way to ask whether the client is still there.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX: Final = 64 * 1024

_HUNG_UP: Final = "picopay.hung_up"

_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


def hung_up(scope: Scope) -> Callable[[], bool]:
    """Tells whether the client has closed the connection; under another server, never."""
    return scope.get(_HUNG_UP, _never)


def _never() -> bool:
    return False


class HttpProtocol(HttpToolsProtocol):
    """Answers 431 (RFC 6585, section 5) and closes, once a head or a trailer is too long."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*args, **kwargs)
        self._besides_body = 0  # bytes since the message began, or since the last of its body
        self._lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Gathering(transport, self.loop))  # pyright: ignore[reportArgumentType] - a transport, as far as it is used

    def data_received(self, data: bytes) -> None:
        if self._besides_body > HEAD_BYTES_MAX:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
            return
        self._besides_body += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._besides_body = 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        self._besides_body = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        # Not the exchange's own word for it: that would tie each request into a reference cycle.
        cast("Scope", self.scope)[_HUNG_UP] = self._is_lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        super().connection_lost(exc)

    def _is_lost(self) -> bool:
        return self._lost


class _Gathering:
    """A transport that sends together what is written within one turn of the event loop.

    Head and body are written one after the other, and each would be sent at once: two system
    calls here, two packets to be read over there.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else a transport has
        return getattr(self._transport, name)
