"""Which URLs we call."""

from typing import Final
from urllib.parse import urlsplit

URL_LENGTH_MAX: Final = 2000
_NO_HTTP_URL: Final = "must be an http:// or https:// URL without user, password or fragment"


def http_url(text: str) -> str:
    """The URL, if it is an absolute one that can be called; raises ValueError."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port  # reading them is what checks them
    except ValueError:
        raise ValueError(_NO_HTTP_URL) from None
    plain = text.isascii() and text.isprintable() and " " not in text
    whole = parts.scheme in ("http", "https") and host and port != 0
    if not (plain and whole) or "@" in parts.netloc or "#" in text or len(text) > URL_LENGTH_MAX:
        raise ValueError(_NO_HTTP_URL)
    return text
