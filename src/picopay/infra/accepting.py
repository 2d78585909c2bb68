"""An event loop for uvicorn that lets in all who wait, not one connection a turn as uvloop does.

A turn of a busy server takes tens of milliseconds. One at a time, a thousand clients that connect
at once would be let in over half a minute, and a probe that asks for its health stands behind them.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# In the first turn so few that other processes get their share; as long as more are waiting, twice
# as many in each, so that a burst is soon let in; and never so many that others wait for long.
ACCEPTED_FIRST: Final = 16
ACCEPTED_A_TURN_MAX: Final = 128


class Loop(uvloop.Loop):
    async def create_server(self, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as asyncio has it
        server = await super().create_server(protocol_factory, *args, **kwargs)
        return _Server(self, protocol_factory, cast("asyncio.Server", server))


class _Server:
    """A server of the loop's own, and beside it a second look at the sockets that it listens on."""

    def __init__(self, loop: Loop, protocol_factory: Any, server: asyncio.Server) -> None:  # noqa: ANN401 - any callable
        self._loop = loop
        self._protocol_factory = protocol_factory
        self._server = server
        self._accepted_at_most = ACCEPTED_FIRST
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners = [socket.socket(fileno=os.dup(s.fileno())) for s in server.sockets]
        for listener in self._listeners:
            loop.add_reader(listener, self._accept, listener)

    @property
    def sockets(self) -> Sequence[Any]:
        return self._server.sockets

    def is_serving(self) -> bool:
        return self._server.is_serving()

    def close(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()
        self._server.close()

    async def wait_closed(self) -> None:
        await self._server.wait_closed()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(self._accepted_at_most):
            try:
                accepted, _address = listener.accept()
            except OSError:  # nobody is left; or what it is, the loop's own server will meet too
                self._accepted_at_most = ACCEPTED_FIRST
                return
            task = self._loop.create_task(self._connect(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._accepted_at_most = min(2 * self._accepted_at_most, ACCEPTED_A_TURN_MAX)

    async def _connect(self, accepted: socket.socket) -> None:
        accepted.settimeout(0)
        with suppress(OSError):  # who is gone already
            made = await self._loop.connect_accepted_socket(self._protocol_factory, accepted)
            if not self._listeners:  # the server has ended meanwhile, and told the others so
                cast("HttpToolsProtocol", made[1]).shutdown()
