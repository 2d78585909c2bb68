"""HTTP for coroutines, on aiohttp: one request, one outcome, bounded in time and size."""

from types import SimpleNamespace
from typing import Final

import aiohttp
from yarl import URL

from picopay.client.options import Options
from picopay.client.wire import Garbage, Outcome, Request, Silence, outcome_of

# Shorter than servers keep theirs: a connection that the other side is just closing would make
# it doubtful whether a request was received.
IDLE_CONNECTION_SECONDS_MAX: Final = 3.0


class AioHttp:
    """It follows no redirects, keeps no cookies and knows no proxies."""

    def __init__(self, url: str, options: Options) -> None:
        self._limits = options.limits
        self._origin = str(URL(url).origin())
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_note_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._limits.connections_max,
                keepalive_timeout=IDLE_CONNECTION_SECONDS_MAX,
                ssl=True if options.ssl_context is None else options.ssl_context,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            trace_configs=[tracing],
        )

    async def exchange(self, request: Request, seconds: float) -> Outcome:
        progress = SimpleNamespace(sent=False)
        timeout = aiohttp.ClientTimeout(
            total=max(seconds, 0.001), sock_connect=self._limits.connect_seconds, ceil_threshold=600
        )
        try:
            async with self._session.request(
                request.method,
                URL(self._origin + request.target, encoded=True),
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                timeout=timeout,
                trace_request_ctx=progress,
            ) as response:
                return await self._answer(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The library tries some methods once more by itself: what counts is whether anything
            # was ever sent, not what the last error was.
            return Silence(progress.sent, _why(error, seconds))

    async def _answer(self, response: aiohttp.ClientResponse) -> Outcome:
        most, body = self._limits.answer_bytes_max, bytearray()
        async for part in response.content.iter_any():
            body += part
            if len(body) > most:
                response.close()
                return Garbage(f"the answer is longer than {most} bytes")
        return outcome_of(response.status, response.headers.items(), bytes(body))

    async def close(self) -> None:
        await self._session.close()


def _why(error: Exception, seconds: float) -> str:
    """Without the URL, whose query may hold what logs should not."""
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer within {seconds:.3g} s"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{type(error).__name__}: {error.message}"
    return f"{type(error).__name__}: {error}"


async def _note_sent(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _sent: aiohttp.TraceRequestHeadersSentParams,
) -> None:
    context.trace_request_ctx.sent = True
