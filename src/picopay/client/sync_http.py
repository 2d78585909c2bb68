"""HTTP for threads, on urllib3: one request, one outcome, bounded in time and size."""

import io
from http.client import HTTPResponse
from socket import socket
from ssl import SSLCertVerificationError
from threading import BoundedSemaphore
from time import monotonic
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, SSLError

from picopay.client.options import Options
from picopay.client.wire import Garbage, Outcome, Request, Silence, outcome_of


class SyncHttp:
    """It follows no redirects, tries nothing again, keeps no cookies and knows no proxies."""

    def __init__(self, url: str, options: Options) -> None:
        self._limits = options.limits
        self._slots = BoundedSemaphore(options.limits.connections_max)
        secure = {} if options.ssl_context is None else {"ssl_context": options.ssl_context}
        self._pool = urllib3.connection_from_url(
            url, maxsize=self._limits.connections_max, **secure
        )
        is_https = isinstance(self._pool, urllib3.HTTPSConnectionPool)
        self._pool.ConnectionCls = _Https if is_https else _Http  # pyright: ignore[reportAttributeAccessIssue] - nor do its own

    def exchange(self, request: Request, seconds: float) -> Outcome:
        give_up_at = monotonic() + seconds
        if not self._slots.acquire(timeout=seconds):
            return Silence(sent=False, why=f"no connection was free within {seconds:.3g} s")
        try:
            return self._answer(request, give_up_at - monotonic())
        except HTTPError as error:
            return Silence(_was_sent(error), str(error))
        finally:
            self._slots.release()

    def _answer(self, request: Request, seconds: float) -> Outcome:
        if seconds <= 0:
            return Silence(sent=False, why="no connection was free in time")
        response = self._pool.urlopen(
            request.method,
            request.target,
            body=request.body,
            headers=request.headers,
            retries=False,
            redirect=False,
            timeout=urllib3.Timeout(total=seconds, connect=self._limits.connect_seconds),
            preload_content=False,
            decode_content=False,
        )
        most = self._limits.answer_bytes_max
        body = response.read(most + 1)
        if len(body) > most:
            response.close()
            return Garbage(f"the answer is longer than {most} bytes")
        response.release_conn()
        if response.length_remaining:
            return Silence(sent=True, why="the answer broke off")
        return outcome_of(response.status, response.headers.items(), body)

    def close(self) -> None:
        self._pool.close()


def _was_sent(error: HTTPError) -> bool:
    """Whether it may have been: yes, unless that is known to be impossible."""
    unsafe = isinstance(error, SSLError) and isinstance(error.args[0], SSLCertVerificationError)
    return not (unsafe or isinstance(error, ConnectTimeoutError))


class _Paced(io.RawIOBase):
    """What is read from a socket, with one deadline for all of it.

    The library's own bound is one for each read: a server that sends a byte a second would never
    come to its end.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket) -> None:
        self._raw = raw
        self._sock = sock
        self._give_up_at = monotonic() + (sock.gettimeout() or 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401 - any writable buffer
        left = self._give_up_at - monotonic()
        if left <= 0:
            raise TimeoutError("the answer did not end in time")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Paced(self.fp.detach(), sock))


# Where the standard library lets its response be replaced.
class _Http(HTTPConnection):
    response_class = _Response


class _Https(HTTPSConnection):
    response_class = _Response
