"""What every answer says besides, and what an X-Request-ID may be."""

import re
from typing import Final

REQUEST_ID_BYTES_MAX: Final = 128
REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,%d}" % REQUEST_ID_BYTES_MAX)

# The API pages bring styles of their own, an embedded logo and a search worker; nothing else.
_CONTENT_POLICY: Final = (
    b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    b"worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)

SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", _CONTENT_POLICY),
    (b"cross-origin-resource-policy", b"same-origin"),
]
