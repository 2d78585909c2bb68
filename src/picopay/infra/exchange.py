"""One request that has come whole, and its answer in one piece: how nearly all of them are.

uvicorn's own way is made for bodies that come and go in parts: it wakes the application for each,
looks at each header twice, and writes the head before the body. What is plain goes this way, and
what is not goes uvicorn's.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

BODY_DIGITS_MAX: Final = 4  # larger bodies are worth the longer way

# What makes a request more than a head and so many bytes.
_UNUSUAL: Final = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
_KEEP_ALIVE: Final = b"keep-alive"
_CONTROLS: Final = bytes([*range(32), 127])


def is_plain(url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """A path as it stands, each header once, none that asks for more, and a small body or none."""
    by_name = dict(headers)
    length = by_name.get(b"content-length", b"0")
    return (
        len(by_name) == len(headers)
        and _UNUSUAL.isdisjoint(by_name)
        and by_name.get(b"connection", _KEEP_ALIVE).lower() == _KEEP_ALIVE
        and len(length) <= BODY_DIGITS_MAX
        and length.isdigit()
        and url.startswith(b"/")
        and not url.startswith(b"//")
        and b"%" not in url
        and url.isascii()
    )


class _Nobody:
    """Whom uvicorn would wake at every part of the body."""

    def set(self) -> None:
        pass


class Exchange(RequestResponseCycle):
    """To be started once the body is whole."""

    def __init__(self, protocol: HttpToolsProtocol, method: str, url: bytes) -> None:
        path, _, query = url.partition(b"?")
        scope: Any = protocol.scope
        scope["method"], scope["path"], scope["raw_path"] = method, path.decode(), path
        scope["query_string"] = query
        super().__init__(
            scope=scope,
            transport=protocol.transport,
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=protocol.access_log,
            default_headers=protocol.server_state.default_headers,
            message_event=_NOBODY,
            expect_100_continue=False,
            keep_alive=True,
            on_response=protocol.on_response_complete,
        )
        self._head: Any = None  # kept until the body comes

    async def receive(self) -> Any:  # noqa: ANN401 - as ASGI has it
        if self.more_body:
            self.more_body = False
            return {"type": "http.request", "body": bytes(self.body), "more_body": False}
        if not self.disconnected and not self.response_complete:
            self.message_event = asyncio.Event()
            await self.message_event.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:  # noqa: ANN401 - as ASGI has it
        if message["type"] == "http.response.start" and not self.response_started:
            self._head = message  # of an error too, that came in place of what was begun
            return
        head, self._head = self._head, None
        if head is not None:
            if (answer := self._in_one_piece(head, message)) is not None:
                await self._finish(answer)
                return
            await super().send(head)
        await super().send(message)

    def _in_one_piece(self, head: Any, rest: Any) -> bytes | None:  # noqa: ANN401 - ASGI's messages
        """None for what only uvicorn can do, or has to refuse."""
        body = rest.get("body", b"")
        length = b"%d" % len(body)
        headers = [*self.default_headers, *head["headers"]]
        if (b"content-length", length) not in headers or rest.get("more_body"):
            return None
        if not self.keep_alive or self.access_log or self.scope["method"] == "HEAD":
            return None
        parts = [STATUS_LINE[head["status"]]]
        for name, value in headers:
            if name == b"connection":
                return None
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n",)
        told = b"".join(parts)
        lines = len(headers) + 2
        if len(told) - len(told.translate(None, _CONTROLS)) != 2 * lines:
            return None  # somebody's words that would end a line before its time
        return told + body

    async def _finish(self, answer: bytes) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.response_started = self.response_complete = True
        self.transport.write(answer)
        self.message_event.set()
        self.on_response()


_NOBODY: Any = _Nobody()
