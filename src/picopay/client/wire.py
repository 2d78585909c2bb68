"""A call as a value: what is sent, how its answer is read, and whether it may be sent again."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, Generic, NamedTuple, TypeVar
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from picopay import __version__
from picopay.client.errors import AnswerUnreadable
from picopay.client.fields import Malformed, decode
from picopay.client.model import Page

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,1000}")
_NEXT: Final = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')
_USER_AGENT: Final = f"picopay-python/{__version__}"

Param = str | int | bool | datetime | None


class Request(NamedTuple):
    """`target` is path and query, escaped."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None


class Answer(NamedTuple):
    """Whatever the status; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Silence(NamedTuple):
    """No answer. `sent`: whether the request may have been received all the same."""

    sent: bool
    why: str


class Garbage(NamedTuple):
    """An answer that cannot be taken, as one that is too long."""

    why: str


Outcome = Answer | Silence | Garbage


def outcome_of(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Outcome:
    """The answer, if its length is told, so that one that broke off is known."""
    named = {name.lower(): value for name, value in headers}
    tells_length = {"content-length", "transfer-encoding"} & named.keys()
    if not tells_length and status != HTTPStatus.NO_CONTENT:
        return Silence(sent=True, why=f"{status}, and no length that shows whether it is whole")
    return Answer(status, named, body)


class Credential(Enum):
    NONE = auto()
    API_KEY = auto()
    ADMIN = auto()


class Repeat(Enum):
    """Whether it may be sent again when nobody knows whether it was done."""

    SAFE = auto()  # a key, an id of its own or its very nature makes it harmless
    NEVER = auto()


@dataclass(frozen=True, slots=True)
class Told:
    """A successful answer, for who reads it; `key` is the one that was sent."""

    answer: Answer
    key: str | None

    @property
    def json(self) -> object:
        return decode(self.answer.body)

    @property
    def replayed(self) -> bool:
        return self.answer.headers.get("idempotent-replayed") == "true"

    def header(self, name: str) -> str:
        return self.answer.headers.get(name, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T_co]):
    """`answers` are statuses that `read` takes besides 200 to 299."""

    method: str
    path: str
    read: Callable[[Told], T_co]
    params: Mapping[str, Param] = field(default_factory=dict[str, Param])
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    key: str | None = None
    credential: Credential = Credential.API_KEY
    repeat: Repeat = Repeat.SAFE
    answers: frozenset[int] = frozenset()

    def is_answered_by(self, status: int) -> bool:
        return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES or status in self.answers


@dataclass(frozen=True, slots=True)
class Listing(Generic[T_co]):
    """A list as a value: each page is a call."""

    first: Call[Page[T_co]]

    def after(self, cursor: str | None) -> Call[Page[T_co]]:
        if cursor is None:
            return self.first
        return replace(self.first, params={**self.first.params, "cursor": cursor})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and from where: what all requests of a client have in common."""

    prefix: str
    api_key: str | None
    admin_secret: str | None


def caller_of(url: str, api_key: str | None, admin_secret: str | None) -> Caller:
    """Raises `ValueError` for what is no URL of a server; its path, if any, is kept."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("the URL must be http://host[:port] or https://host[:port]")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("the URL must have neither a user nor a query nor a fragment")
    return Caller(parts.path.rstrip("/"), api_key, admin_secret)


def request_of(call: Call[object], caller: Caller, request_id: str | None) -> Request:
    """Raises `ValueError` for a header that would not arrive as it is."""
    sent: dict[str, str | None] = {
        "Idempotency-Key": call.key,
        "X-Request-ID": request_id,
        "X-API-Key": caller.api_key if call.credential is Credential.API_KEY else None,
        "X-Admin-Secret": caller.admin_secret if call.credential is Credential.ADMIN else None,
    }
    headers = {name: _visible(name, value) for name, value in sent.items() if value is not None}
    headers |= {"Accept": "application/json", "Accept-Encoding": "identity"}
    headers |= {"User-Agent": _USER_AGENT, **call.headers}
    if call.body is not None:
        headers["Content-Type"] = "application/json"
    params = {name: _param(value) for name, value in call.params.items() if value is not None}
    query = f"?{urlencode(params, quote_via=quote)}" if params else ""
    return Request(call.method, f"{caller.prefix}{call.path}{query}", headers, call.body)


def _visible(name: str, value: str) -> str:
    if not _VISIBLE.fullmatch(value):
        raise ValueError(f"{name} must be 1 to 1000 visible ASCII characters")
    return value


def _param(value: Param) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def path(template: str, *names: object) -> str:
    """`path("/v1/users/{}", 7)`: each name escaped, dots too, so that none leads elsewhere."""
    return template.format(*(quote(str(name), safe="").replace(".", "%2E") for name in names))


def next_cursor(link: str) -> str | None:
    """The cursor of a `Link: <…>; rel="next"` header (RFC 8288).

    Nothing else of the link is followed: an answer does not choose where the next request goes.
    """
    if (found := _NEXT.search(link)) is None:
        return None
    cursors = parse_qs(urlsplit(found[1]).query).get("cursor")
    if not cursors:
        raise Malformed("the next link has no cursor")
    return cursors[0]


def checked(page: Page[T], asked: str | None) -> Page[T]:
    """The page, unless it leads back to itself for ever."""
    if asked is not None and page.next_cursor == asked:
        raise AnswerUnreadable("the page's next cursor is its own")
    return page
