"""Routes that refuse at the door while their queue is full: before the application is asked.

A refusal must cost next to nothing, or refusing is what keeps a busy server from its work. It is
the same answer that the route itself would give.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from picopay.infra import draining, metrics, problems
from picopay.infra.forms import Forms, form_of
from picopay.infra.headers import REQUEST_ID, REQUEST_ID_BYTES_MAX, SECURITY_HEADERS
from picopay.infra.ids import new_id_text
from picopay.infra.json import dump
from picopay.kernel.errors import Overloaded

Doors = Mapping[bytes, "Door"]  # by the request's first line

_HOST: Final = b"\r\nhost:"
_CONNECTION: Final = b"\r\nconnection:"
_KEEP_ALIVE: Final = b"\r\nconnection: keep-alive\r\n"
_REQUEST_ID: Final = b"\r\nx-request-id:"
# The last is a browser's, to which the answer must say whose pages may read it.
_UNUSUAL: Final = (
    b"\r\ntransfer-encoding:",
    b"\r\nexpect:",
    b"\r\nproxy-connection:",
    b"\r\norigin:",
)
HEAD_LINES_MAX: Final = 100
HEAD_BYTES_MAX: Final = 16 * 1024
TOLD: Final = "more is waiting than can be done in time"

_ANSWERED: Final = metrics.http_requests.labels("POST", "503")


class Door:
    """Of one route. `full` is told how many are inside: let in, and not answered yet.

    Many are read in one turn of the event loop, before the first of them has reached the queue.
    `refused` counts so many in the route's own metrics.
    """

    def __init__(self, full: Callable[[int], bool], refused: Callable[[int], None]) -> None:
        self.inside = 0
        self._full = full
        self._refused = refused
        self._uncounted = 0  # in this turn of the event loop

    @property
    def full(self) -> bool:
        """Never while draining: each answer then ends its connection, and ours would keep it.

        Who comes in the same turn as somebody refused is refused too: nobody has left since.
        """
        return self._uncounted > 0 or (self._full(self.inside) and not draining.has_begun())

    def count(self, loop: asyncio.AbstractEventLoop) -> None:
        """One more was refused: told once a turn of the event loop, since it costs as much."""
        self._uncounted += 1
        if self._uncounted == 1:
            loop.call_soon(self._tell)

    def _tell(self) -> None:
        refused, self._uncounted = self._uncounted, 0
        self._refused(refused)
        metrics.requests_shed.inc(refused)
        _ANSWERED.inc(refused)


def line(method: str, path: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\n".encode()


def refusal(data: bytes) -> bytes | None:
    """The answer to a whole request that comes to a full queue; None lets it in.

    Where a request ends, the route's own kind of parser says: what would be read otherwise would
    be answered here, and be taken for another request.
    """
    if _refused.is_as_before(data):
        return _answer_by_new_id()
    if (request_id := _id_if_usual(data)) is None:
        return None
    return _answer(request_id, _quoted(request_id)) if request_id else _answer_by_new_id()


def _id_if_usual(data: bytes) -> bytes | None:
    """The id of a whole request that is not to be refused for something else; empty without one."""
    head_bytes = data.find(b"\r\n\r\n") + 4
    form, request_id = form_of(data[:head_bytes])
    if (body_bytes := _refused.body_bytes(form)) is None:
        return _parsed(data, head_bytes, form, request_id)
    if len(data) != head_bytes + body_bytes:
        return None
    if not request_id:
        _refused.note(data, head_bytes)
    return request_id


def _parsed(data: bytes, head_bytes: int, form: bytes, request_id: bytes) -> bytes | None:
    """The same, for what is not known by its form."""
    if (body_bytes := _body_of_one_request(data)) is None or len(data) != head_bytes + body_bytes:
        return None
    head = data[: head_bytes - 2].lower()
    if not _is_usual(head):
        return None
    if request_id or _REQUEST_ID not in head:
        _refused.add(form, body_bytes)
    return request_id or _request_id(data, head)


_refused: Final = Forms()


def _is_usual(head: bytes) -> bool:
    """Not to be refused for something else, and the connection goes on behind it."""
    return (
        head.count(_HOST) == 1
        and head.count(_CONNECTION) == head.count(_KEEP_ALIVE)
        and head.count(_REQUEST_ID) <= 1
        and not any(name in head for name in _UNUSUAL)
        and head.count(b"\r\n") <= HEAD_LINES_MAX
        and len(head) <= HEAD_BYTES_MAX
    )


def _request_id(data: bytes, head: bytes) -> bytes:
    """The request's own, however it is written; empty if it has none."""
    at = head.find(_REQUEST_ID)
    if at < 0:
        return b""
    begins = at + len(_REQUEST_ID)
    told = data[begins : data.find(b"\r\n", begins)].strip(b" \t")
    return told if REQUEST_ID.fullmatch(told) else b""


class _Reader:
    """Counts what begins and what is whole. Asked for no more, the parser takes next to no time."""

    __slots__ = ("begun", "body_bytes", "whole")

    def __init__(self) -> None:
        self.begun = self.whole = self.body_bytes = 0

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_message_complete(self) -> None:
        self.whole += 1


def _body_of_one_request(data: bytes) -> int | None:
    """Its length, in bytes. The parser passes over line ends behind it: they are not the body's."""
    reader = _Reader()
    try:
        HttpRequestParser(reader).feed_data(data)
    except (HttpParserError, HttpParserUpgrade):
        return None
    return reader.body_bytes if reader.begun == reader.whole == 1 else None


def _answer(request_id: bytes, quoted: bytes) -> bytes:
    """Both are the request's id: as it stands in the head, and in the body, which is JSON."""
    return b"".join((_HEAD, request_id, _BEFORE_ID[len(quoted)], quoted, _AFTER_ID))


def _answer_by_new_id() -> bytes:
    request_id = new_id_text().encode()
    return _answer(request_id, request_id)


def _quoted(request_id: bytes) -> bytes:
    return request_id.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _template() -> tuple[bytes, Sequence[bytes], bytes]:
    """What goes before the id in the head; before it in the body, by its length; and after it."""
    mark = "request-id-stands-here"
    refused = Overloaded(TOLD)
    answer = problems.response(refused)
    before, _, after = dump(problems.document(refused, mark)).partition(mark.encode())
    headers = [(name, value) for name, value in answer.raw_headers if name != b"content-length"]
    lines = [b"%b: %b\r\n" % header for header in [*headers, *SECURITY_HEADERS]]
    status = b"HTTP/1.1 503 Service Unavailable\r\n"
    rest_bytes = len(before) + len(after)
    lengths = [rest_bytes + id_bytes for id_bytes in range(2 * REQUEST_ID_BYTES_MAX + 1)]
    before_id = [b"\r\ncontent-length: %d\r\n\r\n%b" % (length, before) for length in lengths]
    return b"".join([status, *lines, b"x-request-id: "]), before_id, after


_HEAD, _BEFORE_ID, _AFTER_ID = _template()
