"""Our one outgoing HTTP client: bounded in time and size, and exact about what is not known."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from picopay import __version__

# A relay stops a handler after 20 s: what it waits for must end before that.
TOTAL_SECONDS_MAX: Final = 10.0
CONNECT_SECONDS_MAX: Final = 3.0
ANSWER_BYTES_MAX: Final = 64 * 1024
CONNECTIONS_MAX: Final = 100
CONNECTIONS_PER_HOST_MAX: Final = 20
# Shorter than servers keep theirs: a connection that the other side is just closing would make
# it doubtful whether a request was received.
IDLE_CONNECTION_SECONDS_MAX: Final = 3.0

_HEADERS: Final = {"User-Agent": f"picopay/{__version__}", "Accept-Encoding": "identity"}


class Answer(NamedTuple):
    """Whatever the status; `body` is its first 64 KiB as they were sent, never decompressed."""

    status: int
    body: bytes


class Unreachable(Exception):
    """Surely not received: no connection came about."""


class Unanswered(Exception):
    """It may have been received: no answer came, not in time, or none that can be read."""


class Http:
    """To be made inside a running event loop, and closed there.

    It follows no redirects, keeps no cookies and knows no proxies. HTTP errors are answers.
    """

    def __init__(
        self,
        *,
        total_seconds_max: float = TOTAL_SECONDS_MAX,
        connect_seconds_max: float = CONNECT_SECONDS_MAX,
    ) -> None:
        self._total_seconds_max = total_seconds_max
        self._connect_seconds_max = connect_seconds_max
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_note_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=CONNECTIONS_MAX,
                limit_per_host=CONNECTIONS_PER_HOST_MAX,
                keepalive_timeout=IDLE_CONNECTION_SECONDS_MAX,
            ),
            timeout=aiohttp.ClientTimeout(total=total_seconds_max, connect=connect_seconds_max),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            trace_configs=[tracing],
        )

    async def send(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        """Raises `Unreachable` or `Unanswered`; neither tells more of the URL than its host."""
        progress = SimpleNamespace(sent=False)
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=progress,
            ) as response:
                return Answer(response.status, await _first_bytes(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            told = f"{method} {_host(url)}: {self._why(error)}"
            # The library tries some methods once more by itself: what counts is whether anything
            # was ever sent, not what the last error was.
            raise (Unanswered if progress.sent else Unreachable)(told) from None

    async def close(self) -> None:
        await self._session.close()

    def _why(self, error: Exception) -> str:
        """Without the URL, whose query may hold secrets."""
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"no connection within {self._connect_seconds_max:g} s"
        if isinstance(error, TimeoutError):
            return f"no answer within {self._total_seconds_max:g} s"
        if isinstance(error, aiohttp.ClientConnectorError):
            return error.strerror or "no connection"
        return type(error).__name__


async def _note_sent(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _sent: aiohttp.TraceRequestHeadersSentParams,
) -> None:
    context.trace_request_ctx.sent = True


async def _first_bytes(response: aiohttp.ClientResponse) -> bytes:
    """Leaving a longer body unread closes its connection."""
    body = b""
    while len(body) < ANSWER_BYTES_MAX:
        part = await response.content.read(ANSWER_BYTES_MAX - len(body))
        if not part:
            break
        body += part
    return body


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return "?"
