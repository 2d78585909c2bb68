"""Routes that refuse at the door while their queue is full: before a request is parsed.

A refusal must cost next to nothing, or refusing is what keeps a busy server from its work. It is
the same answer that the route itself would give.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from picopay.infra import metrics, problems
from picopay.infra.headers import REQUEST_ID, SECURITY_HEADERS
from picopay.infra.ids import new_id_text
from picopay.infra.json import dump
from picopay.kernel.errors import Overloaded

Doors = Mapping[bytes, "Door"]  # by the request's first line

_LENGTH: Final = b"\r\ncontent-length:"
_REQUEST_ID: Final = b"\r\nx-request-id:"
TOLD: Final = "more is waiting than can be done in time"
# What only the parser can judge.
_UNUSUAL: Final = re.compile(rb"\r\n(transfer-encoding|expect|connection|upgrade):")


_ANSWERED: Final = metrics.http_requests.labels("POST", "503")


class Door(NamedTuple):
    full: Callable[[], bool]
    refused: Callable[[], None]  # counts it in the route's own metrics


def line(method: str, path: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\n".encode()


def refusal(doors: Doors, data: bytes) -> bytes | None:
    """The answer to a whole request that comes to a full queue; None lets it in."""
    door = doors.get(data[: data.find(b"\n") + 1])
    if door is None or not door.full():
        return None
    end = data.find(b"\r\n\r\n")
    head = data[: end + 2].lower()
    if not _whole(head, len(data) - end - 4):
        return None  # the route will refuse it
    door.refused()
    metrics.requests_shed.inc()
    _ANSWERED.inc()
    return _answer(_request_id(data, head))


def _whole(head: bytes, body_bytes: int) -> bool:
    at = head.find(_LENGTH)
    if at < 0 or at != head.rfind(_LENGTH) or _UNUSUAL.search(head):
        return False
    length = _value(head, at + len(_LENGTH))
    return length.isdigit() and int(length[:9]) == body_bytes


def _request_id(data: bytes, head: bytes) -> bytes:
    """The request's own, or a new one."""
    at = head.find(_REQUEST_ID)
    told = _value(data, at + len(_REQUEST_ID)) if at >= 0 else b""
    return told if REQUEST_ID.fullmatch(told) else new_id_text().encode()


def _value(data: bytes, begins: int) -> bytes:
    return data[begins : data.find(b"\r\n", begins)].strip(b" \t")


def _answer(request_id: bytes) -> bytes:
    body = _BODY_BEFORE + request_id.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + _BODY_AFTER
    return b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        _HEAD,
        request_id,
        len(body),
        body,
    )


def _template() -> tuple[bytes, bytes, bytes]:
    mark = "request-id-stands-here"
    refused = Overloaded(TOLD)
    answer = problems.response(refused)
    before, _, after = dump(problems.document(refused, mark)).partition(mark.encode())
    headers = [(name, value) for name, value in answer.raw_headers if name != b"content-length"]
    lines = [b"%b: %b\r\n" % header for header in [*headers, *SECURITY_HEADERS]]
    return b"HTTP/1.1 503 Service Unavailable\r\n" + b"".join(lines), before, after


_HEAD, _BODY_BEFORE, _BODY_AFTER = _template()
