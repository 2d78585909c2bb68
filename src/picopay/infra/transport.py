"""Ways out of the server: what is written to many connections in one turn is sent together.

Sent one by one, each answer would wake whoever reads it, and on one machine that costs more than
to send it. And the head and the body of one answer would be two packets.
"""

import asyncio
from typing import Any, Final
from weakref import WeakKeyDictionary

# More would wait for too long: between two answers there is a request to be read.
SENT_TOGETHER: Final = 32


class Departures:
    """The connections that have something to be sent, of one event loop."""

    def __init__(self) -> None:
        self._waiting: list[WayOut] = []

    def add(self, way_out: "WayOut") -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append(way_out)
        if len(self._waiting) == SENT_TOGETHER:
            self._send()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for way_out in waiting:
            way_out.send()


_of_loops: Final = WeakKeyDictionary[asyncio.AbstractEventLoop, Departures]()


def departures(loop: asyncio.AbstractEventLoop) -> Departures:
    return _of_loops.setdefault(loop, Departures())


class WayOut:
    """A transport that sends when the event loop comes round again, or enough is waiting."""

    __slots__ = ("_departures", "_parts", "_transport")

    def __init__(self, transport: asyncio.Transport, departures: Departures) -> None:
        self._transport = transport
        self._departures = departures
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        if len(self._parts) == 1:
            self._departures.add(self)

    def send(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        self.send()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else a transport has
        return getattr(self._transport, name)
