"""Requests alike but for key, id and body: what was parsed in one holds for the others."""

import re
from collections.abc import Sequence
from typing import Final

from picopay.infra.headers import REQUEST_ID

FORMS_MAX: Final = 1000
FORM_BYTES_MAX: Final = 2048

# As clients write them; of others each is a form of its own.
_KEYS: Final = (b"\r\nIdempotency-Key: ", b"\r\nidempotency-key: ")
_REQUEST_IDS: Final = (b"\r\nX-Request-ID: ", b"\r\nx-request-id: ")
# Nothing that these may be replaced with changes where a request ends.
_KEY: Final = re.compile(rb"[0-9A-Za-z-]+")


def form_of(head: bytes) -> tuple[bytes, bytes]:
    """The head without its key and its request's id; and that id, empty where none is plain."""
    before, _, after = _cut(head, _KEYS, _KEY)
    before, request_id, after = _cut(before + after, _REQUEST_IDS, REQUEST_ID)
    return before + after, request_id


def _cut(
    head: bytes, names: Sequence[bytes], plain: re.Pattern[bytes]
) -> tuple[bytes, bytes, bytes]:
    """What goes before the value, the value, and the rest; without a plain one, all goes before."""
    for name in names:
        if (at := head.find(name)) < 0:
            continue
        begins = at + len(name)
        ends = head.find(b"\r\n", begins)
        if plain.fullmatch(head, begins, ends):
            return head[:begins], head[begins:ends], head[ends:]
        break
    return head, b"", b""


class Forms:
    """How long a body each form announces. Forgotten all at once, should there be too many."""

    def __init__(self) -> None:
        self._body_bytes: dict[bytes, int] = {}
        self._latest: dict[int, tuple[bytes, bytes, int]] = {}  # by the bytes of the whole request

    def body_bytes(self, form: bytes) -> int | None:
        return self._body_bytes.get(form)

    def add(self, form: bytes, body_bytes: int) -> None:
        if len(form) > FORM_BYTES_MAX:
            return
        if len(self._body_bytes) == FORMS_MAX:
            self._body_bytes.clear()
        self._body_bytes[form] = body_bytes

    def is_as_before(self, data: bytes) -> bool:
        """It differs from the latest whole request of its length by key and body: the usual case.

        To know that, nothing need be cut out of it, nor looked for in it.
        """
        latest = self._latest.get(len(data))
        if latest is None:
            return False
        before, after, rest_bytes = latest
        ends = len(data) - rest_bytes
        return (
            data.startswith(before)
            and data.startswith(after, ends)
            and _KEY.fullmatch(data, len(before), ends) is not None
        )

    def note(self, data: bytes, head_bytes: int) -> None:
        """A whole request without an id of its own, of a form that is known."""
        before, key, after = _cut(data[:head_bytes], _KEYS, _KEY)
        if key and len(data) <= FORM_BYTES_MAX:
            self._latest[len(data)] = before, after, len(data) - len(before) - len(key)
