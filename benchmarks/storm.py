"""Requests by one timetable, whether or not earlier ones are answered, and what becomes of them.

Over bare sockets, and a millisecond's requests and answers at a time: whatever the clients of an
overload take of the machine is missing to the server.
"""

import gc
import re
import select
import socket
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final, NamedTuple

from pace import History, Pace

LET_IN_SECONDS: Final = 1.0  # the connections, before the first request
LOOK_SECONDS: Final = 0.001
ANSWERS_AWAITED_SECONDS: Final = 10.0  # once all is sent
READ_BYTES: Final = 64 * 1024
_STATUS: Final = slice(9, 12)
_HEAD_ENDS: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class Answer(NamedTuple):
    seconds: float  # since its request was due
    due: float


Answers = dict[int, list[Answer]]


@dataclass(frozen=True)
class Storm:
    """What the clients saw: by status, the answers as they came; and the machine's pace meanwhile.

    Of the answers 200, `in_time` came before the end.
    """

    sent: int
    answers: Answers
    in_time: int
    failed: int
    pace: History


def storm(
    port: int, request: Callable[[], bytes], *, per_second: float, seconds: float, connections: int
) -> Storm:
    """Send what `request` makes, each as soon as it is due and a connection is free."""
    clients, pace = _Clients(port, connections), Pace()
    time.sleep(LET_IN_SECONDS)
    gc.disable()  # a collection would keep all clients waiting
    began, sent = time.monotonic(), 0
    dues = (began + number / per_second for number in count())
    due = next(dues)
    while (now := time.monotonic()) < began + seconds:
        while due <= now and clients.free:
            clients.send(request(), due)
            due, sent = next(dues), sent + 1
        pace.note()
        clients.collect()
    in_time = len(clients.answers[200])
    while clients.under_way and time.monotonic() < now + ANSWERS_AWAITED_SECONDS:
        pace.note()
        clients.collect()
    failed = clients.lost + clients.under_way
    clients.close()
    gc.enable()
    return Storm(sent, clients.answers, in_time, failed, pace.history())


@dataclass(slots=True, eq=False)
class _Client:
    socket: socket.socket
    due: float = 0.0
    heard: bytes = b""


class _Clients:
    """Connections that are kept open, and what came on them.

    The one used last is used next, as pools of connections have it.
    """

    def __init__(self, port: int, connections: int) -> None:
        self._ready = select.epoll()
        self._by_number = dict(self._connect(port) for _ in range(connections))
        self.free = list(self._by_number.values())
        self.lost = 0
        self.answers: Answers = defaultdict(list)

    def _connect(self, port: int) -> tuple[int, _Client]:
        connected = socket.create_connection(("127.0.0.1", port), timeout=10)
        connected.setblocking(False)  # noqa: FBT003  (it has no name)
        self._ready.register(connected, select.EPOLLIN)
        return connected.fileno(), _Client(connected)

    @property
    def under_way(self) -> int:
        return len(self._by_number) - len(self.free)

    def send(self, request: bytes, due: float) -> None:
        """On a connection where nothing is under way: it takes the whole, unless it is lost."""
        client = self.free.pop()
        client.due = due
        with suppress(OSError):  # `collect` meets it too
            client.socket.send(request)

    def collect(self) -> None:
        """Whatever has come by now, and in the next moment."""
        time.sleep(LOOK_SECONDS)
        for number, _ in self._ready.poll(0):
            self._hear(number)

    def _hear(self, number: int) -> None:
        client = self._by_number[number]
        try:
            heard = client.socket.recv(READ_BYTES)
        except OSError:
            heard = b""
        if not heard:
            self._lose(number)
            return
        client.heard += heard
        if _is_whole(client.heard):
            status, client.heard = int(client.heard[_STATUS]), b""
            self.answers[status].append(Answer(time.monotonic() - client.due, client.due))
            self.free.append(client)

    def _lose(self, number: int) -> None:
        client = self._by_number.pop(number)
        client.socket.close()
        if client in self.free:
            self.free.remove(client)
        else:
            self.lost += 1

    def close(self) -> None:
        self._ready.close()
        for client in self._by_number.values():
            client.socket.close()


def _is_whole(answer: bytes) -> bool:
    length, head_ends = _LENGTH.search(answer), answer.find(_HEAD_ENDS)
    return bool(length) and len(answer) >= head_ends + len(_HEAD_ENDS) + int(length[1])
