"""HTTP/1.1 as uvicorn speaks it, with what it lacks.

Bounds, in bytes, in number and in time, on what anybody may send without any key. A strict reading
of what frames a message: what two servers could read differently is refused, so that no request
hides in another. Upgrades that are offered are passed over, as RFC 9110 wants (section 7.8). A
shorter way for plain requests. A cheap way to ask whether the client is still there. And doors, at
which a request is refused before the application knows of it.
"""

import asyncio
from collections.abc import Callable, Sized
from http import HTTPStatus
from typing import Any, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from picopay.infra.doors import Door, Doors, refusal
from picopay.infra.exchange import Exchange, is_plain
from picopay.infra.logs import log
from picopay.infra.transport import WayOut, departures

HEAD_BYTES_MAX: Final = 64 * 1024
URL_BYTES_MAX: Final = 8 * 1024
HEADERS_MAX: Final = 100
# Some two hundred of the smallest requests: so many wait for their turn, whatever else has come.
BYTES_AT_A_TIME: Final = 4096
# From a request's first byte to its last, and from a connection to its first request.
ARRIVAL_SECONDS_MAX: Final = 30.0
LOOK_SECONDS: Final = 5.0
CONNECTIONS_MAX: Final = 10_000  # of a process

_HUNG_UP: Final = "picopay.hung_up"
_VERSIONS: Final = ("1.1", "1.0")
_TOO_MANY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"retry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


def hung_up(scope: Scope) -> Callable[[], bool]:
    """Tells whether the client has closed the connection; under another server, never."""
    return scope.get(_HUNG_UP, _never)


def _never() -> bool:
    return False


class _Refused(Exception):
    """Thrown through the parser, which then reads no further."""


class _Flow(FlowControl):
    """Reads no further while whole requests wait for their turn: each answer would let in more."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class HttpProtocol(HttpToolsProtocol):
    """Refuses by a bare status, and closes: it is not known where a next request would begin."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*args, **kwargs)
        self._besides_body = 0  # bytes since the message began, or since the last of its body
        self._unread = b""  # behind whole requests that wait for their turn
        self._fault = HTTPStatus.BAD_REQUEST
        self._amid_message = False
        self._in_body = False
        self._heard = False
        self._door: Door | None = None  # through which comes what has begun
        self._entered: Door | None = None
        self._idle_since: float | None = None
        self._arriving_since: float | None = None
        self._unsent_bytes = 0
        self._lost = False
        self._watch: asyncio.TimerHandle | None = None
        self._application = cast("Any", self.app)  # pyright: ignore[reportUnknownMemberType] - uvicorn's own
        self._doors: Doors = getattr(self._application, "doors", {})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        way_out = cast("asyncio.Transport", WayOut(transport, departures(self.loop)))
        super().connection_made(way_out)
        self.flow = _Flow(way_out, self.pipeline)
        self._arriving_since = self.loop.time()
        self._watch = self.loop.call_later(LOOK_SECONDS, self._look)
        if len(self.connections) > CONNECTIONS_MAX:
            self.transport.write(_TOO_MANY)
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._unread:
            self._unread += data
            return
        door = self._doors.get(data[: data.find(b"\n") + 1])
        if door is not None and self._is_idle():
            # Who does not read is refused by the route, which waits until he does.
            unread = self.flow.write_paused
            if door.full and not unread and (answer := refusal(data)) is not None:
                self._turn_away(door, answer)
                return
            self._door = door
        self._read(data)

    def _read(self, data: bytes) -> None:
        """A piece at a time, until a whole request must wait for its turn: then the rest waits."""
        self._heard = True
        self._idle_since = None
        if self._arriving_since is None:
            self._arriving_since = self.loop.time()
        for begins in range(0, len(data), BYTES_AT_A_TIME):
            if self.pipeline:
                self._unread = data[begins:]
                return
            if begins and self.transport.is_closing():
                return
            self._read_piece(data[begins : begins + BYTES_AT_A_TIME])

    def _read_piece(self, piece: bytes) -> None:
        if self._besides_body > HEAD_BYTES_MAX:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self._besides_body += len(piece)
        while piece:
            piece = self._feed(piece)

    def _is_idle(self) -> bool:
        """What comes now begins a request, and nobody waits for the answer to another."""
        return not self._amid_message and self._unanswered() is None

    def _turn_away(self, door: Door, answer: bytes) -> None:
        door.count(self.loop)
        self.transport.write(answer)
        self._arriving_since = None
        self._await_another()

    def _enter(self) -> None:
        """Once the request is whole: who never finishes one must not keep others out."""
        if self._door is not None:  # of requests behind each other, the first
            door, self._door = self._door, None
            if not self.flow.write_paused:
                self._entered = door
                door.inside += 1

    def pause_writing(self) -> None:
        """Who does not read his answers keeps nobody else out."""
        self._leave()
        super().pause_writing()

    def _leave(self) -> None:
        if self._entered is not None:
            self._entered.inside -= 1
            self._entered = None

    def _await_another(self) -> None:
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        """One timer for a whole silence and all before it: to set one anew costs more."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return  # the next answer sets another
        left_seconds = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_seconds <= 0:
            super().timeout_keep_alive_handler()
            return
        self.timeout_keep_alive_task = self.loop.call_later(
            left_seconds, self.timeout_keep_alive_handler
        )

    def on_response_complete(self) -> None:
        self._leave()
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()
            self._await_another()
        if self._unread and not self.pipeline:
            unread, self._unread = self._unread, b""
            self._read(unread)

    def _feed(self, data: bytes) -> bytes:
        """What is to be fed next: after an offered upgrade the same again, without the offer."""
        try:
            self._reader.feed_data(data)
        except HttpParserUpgrade as upgrade:
            return self._head_without_upgrade() + data[upgrade.args[0] :]
        except HttpParserError:
            self._refuse(self._fault)
        return b""

    def _head_without_upgrade(self) -> bytes:
        method, version = self._reader.get_method(), self._reader.get_http_version().encode()
        lines = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([method + b" " + self.url + b" HTTP/" + version, *lines, b"", b""])

    def on_message_begin(self) -> None:
        self._besides_body = 0
        self._arriving_since = self.loop.time()
        self._amid_message = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        fault = self._wrong_with_head()
        if fault is not None:
            self._fault = fault
            raise _Refused
        if self._reader.should_upgrade():
            return
        self._in_body = True
        if self._is_plain():
            self.cycle = Exchange(self, self._reader.get_method().decode(), self.url)
        else:
            super().on_headers_complete()
        # Not the exchange's own word for it: that would tie each request into a reference cycle.
        cast("Scope", self.scope)[_HUNG_UP] = self._is_lost

    def _is_plain(self) -> bool:
        free = self._unanswered() is None and not self.root_path
        return free and self._reader.should_keep_alive() and is_plain(self.url, self.headers)

    def _wrong_with_head(self) -> HTTPStatus | None:
        """What the parser lets pass, and others may read otherwise (RFC 9112, 3.2 and 6.1)."""
        version = self._reader.get_http_version()
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        if version not in _VERSIONS:
            return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        if len(self.url) > URL_BYTES_MAX:
            return HTTPStatus.REQUEST_URI_TOO_LONG
        if len(names) > HEADERS_MAX:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if hosts > 1 or (hosts == 0 and version == "1.1") or b"#" in self.url:
            return HTTPStatus.BAD_REQUEST
        if self._reader.get_method() == b"CONNECT":
            return HTTPStatus.NOT_IMPLEMENTED
        return self._wrong_with_framing(version) if b"transfer-encoding" in names else None

    def _wrong_with_framing(self, version: str) -> HTTPStatus | None:
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if version == "1.0":
            return HTTPStatus.BAD_REQUEST
        return None if codings == [b"chunked"] else HTTPStatus.NOT_IMPLEMENTED

    def on_body(self, body: bytes) -> None:
        self._besides_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._arriving_since = None
        self._amid_message = False
        if not self._reader.should_upgrade():
            self._in_body = False
            if self._unanswered() is None:  # refused for its head, and now it is whole
                self._door = None
                self._await_another()
                return
            self._enter()
            if isinstance(self.cycle, Exchange):
                self._start_asgi_task(self.cycle, self._application)
            else:
                super().on_message_complete()

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer and close; but never so that it is taken for the answer to an earlier request."""
        cycle = self._unanswered()
        if cycle is not None and not self._in_body:
            cycle.keep_alive = False  # it is whole: its answer is the last one here
            return
        own = cycle is not None and not cycle.response_started and not self.pipeline
        if own or not self._in_body:
            log.warning("http.refused", status=status)
            told = f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            self.transport.write(told.encode() + b"connection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()

    def _look(self) -> None:
        """Close what is stuck. Now and then: a timer for each request would cost more."""
        self._watch = self.loop.call_later(LOOK_SECONDS, self._look)
        now, unsent_bytes = self.loop.time(), self.transport.get_write_buffer_size()
        if unsent_bytes and unsent_bytes == self._unsent_bytes:
            self.transport.abort()  # nobody reads what we answer
        self._unsent_bytes = unsent_bytes
        if self._arriving_since is None:
            return
        if self._keeps_client_waiting():
            self._arriving_since = now
        elif now - self._arriving_since > ARRIVAL_SECONDS_MAX:
            if self._heard:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT)
            else:
                self.transport.close()

    def _keeps_client_waiting(self) -> bool:
        cycle = self._unanswered()
        return self.flow.read_paused or (cycle is not None and cycle.waiting_for_100_continue)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._leave()
        self._unset_keepalive_if_required()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._unread = b""
        self.pipeline.clear()
        super().connection_lost(exc)

    def _is_lost(self) -> bool:
        return self._lost

    @property
    def _reader(self) -> HttpRequestParser:
        return cast("HttpRequestParser", self.parser)  # None only once the connection is lost

    def _unanswered(self) -> RequestResponseCycle | None:
        """The latest request, unless it has been answered."""
        cycle = self.cycle  # None before the first
        return None if not cycle or cycle.response_complete else cycle
