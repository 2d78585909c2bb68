"""URLs as settings name them: those that we call, the database's, and browsers' origins."""

import re
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

URL_LENGTH_MAX: Final = 2000
_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_NO_HTTP_URL: Final = "must be an http:// or https:// URL without user, password or fragment"
_NO_URL: Final = "not a postgresql://user:password@host:port/database URL"


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


def sqlalchemy_url(url: str) -> URL:
    """The URL for our driver, whatever driver it was written for; raises ValueError."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError(_NO_URL) from None
    if not parsed.drivername.startswith(("postgresql", "postgres")) or not parsed.database:
        raise ValueError(_NO_URL)
    query = dict(parsed.query)
    if "sslmode" in query:  # libpq's name; asyncpg calls it ssl
        query["ssl"] = query.pop("sslmode")
    return parsed.set(drivername="postgresql+asyncpg", query=query)


def origins(text: str | None) -> tuple[str, ...]:
    """The origins of a list with commas, each as a browser spells it. Raises ValueError."""
    told = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    if not all(_ORIGIN.fullmatch(origin) for origin in told):
        raise ValueError("CORS_ORIGINS is not a list of origins such as https://shop.example")
    return told
