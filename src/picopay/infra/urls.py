"""URLs as settings name them: those that we call, the database's, and browsers' origins."""

import re
from typing import Final
from urllib.parse import urlencode, urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

URL_LENGTH_MAX: Final = 2000
_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_NO_HTTP_URL: Final = "must be an http:// or https:// URL without user, password or fragment"
# What asyncpg knows of libpq's options; where the server is may stand among them too.
_OPTIONS: Final = (
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version"),
    *("target_session_attrs", "passfile", "krbsrvname", "gsslib"),
)
_ADDRESS: Final = frozenset({"host", "port"})
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_REDIS_SCHEMES: Final = ("redis", "rediss", "unix")
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
    except (ArgumentError, ValueError):  # whose words may hold a piece of the password
        raise ValueError(_NO_URL) from None
    if not parsed.drivername.startswith(("postgresql", "postgres")) or not parsed.database:
        raise ValueError(_NO_URL)
    return parsed.set(drivername="postgresql+asyncpg", query=_for_driver(parsed))


def without_secrets(url: str) -> str:
    """Whose database it is, and where: for messages."""
    whole = make_url(url)
    host, port, database = whole.host, whole.port, whole.database
    bare = URL.create("postgresql", whole.username, host=host, port=port, database=database)
    return bare.render_as_string()


def _for_driver(url: URL) -> dict[str, str | tuple[str, ...]]:
    """The driver reads options of libpq from a URL only: it is given one with nothing else."""
    own = {"sslmode" if name == "ssl" else name: value for name, value in url.query.items()}
    passed = {name: own.pop(name) for name in _OPTIONS if name in own}
    if unknown := sorted(own.keys() - _ADDRESS):
        raise ValueError(f"the option {unknown[0]} is not one of {', '.join(_OPTIONS)}")
    if passed.get("sslmode", "prefer") not in _SSL_MODES:
        raise ValueError(f"sslmode is not one of {', '.join(_SSL_MODES)}")
    return own | ({"dsn": f"postgresql://?{urlencode(passed)}"} if passed else {})


def redis_url(url: str) -> str:
    """The URL, if it may be one of Redis; raises ValueError."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in _REDIS_SCHEMES and parts.port != 0
    except ValueError:  # of the port
        whole = False
    if not whole:
        raise ValueError("not a redis://host:port/number URL")
    return url


def origins(text: str | None) -> tuple[str, ...]:
    """The origins of a list with commas, each as a browser spells it. Raises ValueError."""
    told = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    if not all(_ORIGIN.fullmatch(origin) for origin in told):
        raise ValueError("CORS_ORIGINS is not a list of origins such as https://shop.example")
    return told
