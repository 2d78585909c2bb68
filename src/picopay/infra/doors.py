"""Routes that refuse at the door while their queue is full: before a request is parsed.

A refusal must cost next to nothing, or refusing is what keeps a busy server from its work. It is
the same answer that the route itself would give.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from picopay.infra import metrics, problems
from picopay.infra.headers import REQUEST_ID, SECURITY_HEADERS
from picopay.infra.ids import new_id_text
from picopay.infra.json import dump
from picopay.kernel.errors import Overloaded

Doors = Mapping[bytes, "Door"]  # by the request's first line

_LENGTH: Final = b"\r\ncontent-length:"
_HOST: Final = b"\r\nhost:"
_REQUEST_ID: Final = b"\r\nx-request-id:"
_CONNECTION: Final = b"\r\nconnection:"
_KEEP_ALIVE: Final = b"\r\nconnection: keep-alive\r\n"
# Other framing, lines that go on, names that end in a space, and what ends a line for some readers.
_UNUSUAL: Final = (
    *(b"\r\ntransfer-encoding", b"\r\nexpect", b"\r\nupgrade"),
    *(b"\r\n ", b"\r\n\t", b" :", b"\t:", b"\0"),
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
        self._uncounted = 0

    @property
    def full(self) -> bool:
        return self._full(self.inside)

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
    """The answer to a whole request that comes to a full queue; None lets it in, to be parsed."""
    end = data.find(b"\r\n\r\n")
    head = data[: end + 2].lower()
    if not _whole(head, len(data) - end - 4):
        return None  # the route will refuse it
    return _answer(_request_id(data, head))


def _whole(head: bytes, body_bytes: int) -> bool:
    """A body of a known length, and nothing in the head that only the parser can judge.

    What the parser would read otherwise would be answered here, and be taken for another request.
    """
    lines = head.count(b"\r\n")
    if not (
        head.count(_LENGTH) == head.count(_HOST) == 1
        and head.count(b"\n") == head.count(b"\r") == lines <= HEAD_LINES_MAX
        and len(head) <= HEAD_BYTES_MAX
        and not any(word in head for word in _UNUSUAL)
        and head.count(_CONNECTION) == head.count(_KEEP_ALIVE)
    ):
        return False
    return _value(head, head.find(_LENGTH) + len(_LENGTH)) == b"%d" % body_bytes


def _request_id(data: bytes, head: bytes) -> bytes:
    """The request's own, or a new one."""
    at = head.find(_REQUEST_ID)
    told = _value(data, at + len(_REQUEST_ID)) if at >= 0 else b""
    return told if REQUEST_ID.fullmatch(told) else new_id_text().encode()


def _value(data: bytes, begins: int) -> bytes:
    return data[begins : data.find(b"\r\n", begins)].strip(b" \t")


def _answer(request_id: bytes) -> bytes:
    quoted = request_id
    if b"\\" in request_id or b'"' in request_id:
        quoted = request_id.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    length = len(_BODY_BEFORE) + len(quoted) + len(_BODY_AFTER)
    return b"%b%b\r\ncontent-length: %d\r\n\r\n%b%b%b" % (
        *(_HEAD, request_id, length),
        *(_BODY_BEFORE, quoted, _BODY_AFTER),
    )


def _template() -> tuple[bytes, bytes, bytes]:
    mark = "request-id-stands-here"
    refused = Overloaded(TOLD)
    answer = problems.response(refused)
    before, _, after = dump(problems.document(refused, mark)).partition(mark.encode())
    headers = [(name, value) for name, value in answer.raw_headers if name != b"content-length"]
    lines = [b"%b: %b\r\n" % header for header in [*headers, *SECURITY_HEADERS]]
    status = b"HTTP/1.1 503 Service Unavailable\r\n"
    return b"".join([status, *lines, b"x-request-id: "]), before, after


_HEAD, _BODY_BEFORE, _BODY_AFTER = _template()
