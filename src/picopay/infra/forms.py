"""Requests alike but for key, id and body: what was parsed in one holds for the others."""

import re
from typing import Final

FORMS_MAX: Final = 1000
FORM_BYTES_MAX: Final = 2048

# Nothing that these may be replaced with changes where a request ends.
_KEY: Final = re.compile(rb"\r\n[Ii]dempotency-[Kk]ey: ([0-9A-Za-z-]+)(?=\r\n)")
_REQUEST_ID: Final = re.compile(rb"\r\n[Xx]-[Rr]equest-[Ii][Dd]: ([\x21-\x7e]{1,128})(?=\r\n)")


def form_of(head: bytes) -> tuple[bytes, bytes]:
    """The head without its key and its request's id; and that id, empty where none is plain."""
    form, _ = _without(_KEY, head)
    return _without(_REQUEST_ID, form)


def _without(what: re.Pattern[bytes], head: bytes) -> tuple[bytes, bytes]:
    found = what.search(head)
    if found is None:
        return head, b""
    begins, ends = found.span(1)
    return head[:begins] + head[ends:], head[begins:ends]


class Forms:
    """How long a body each form announces. Forgotten all at once, should there be too many."""

    def __init__(self) -> None:
        self._body_bytes: dict[bytes, int] = {}

    def body_bytes(self, form: bytes) -> int | None:
        return self._body_bytes.get(form)

    def add(self, form: bytes, body_bytes: int) -> None:
        if len(form) > FORM_BYTES_MAX:
            return
        if len(self._body_bytes) == FORMS_MAX:
            self._body_bytes.clear()
        self._body_bytes[form] = body_bytes
