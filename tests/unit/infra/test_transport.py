"""What is written to connections leaves together, in order, and at once when one of them ends."""

import asyncio
import gc
from typing import cast
from weakref import ref

import pytest

from picopay.infra.transport import SENT_TOGETHER, WayOut, departures


class Connection:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def way_out(connection: Connection) -> WayOut:
    transport = cast("asyncio.Transport", connection)
    return WayOut(transport, departures(asyncio.get_running_loop()))


async def test_head_and_body_are_sent_as_one_when_the_loop_comes_round() -> None:
    connection = Connection()
    out = way_out(connection)
    out.write(b"head ")
    out.write(b"body")
    assert connection.sent == []
    await asyncio.sleep(0)
    assert connection.sent == [b"head body"]


@pytest.mark.parametrize("left", [0, 1])
async def test_enough_are_sent_at_once_and_the_others_after_them(left: int) -> None:
    connections = [Connection() for _ in range(SENT_TOGETHER + left)]
    for connection in connections:
        way_out(connection).write(b"answer")
    assert sum(len(connection.sent) for connection in connections) == SENT_TOGETHER
    await asyncio.sleep(0)
    assert [connection.sent for connection in connections] == [[b"answer"]] * len(connections)


async def test_who_is_closed_gets_first_what_was_written_and_nothing_after_it() -> None:
    closed, other = Connection(), Connection()
    ways = way_out(closed), way_out(other)
    for out in ways:
        out.write(b"answer")
    ways[0].close()
    assert (closed.sent, closed.closed) == ([b"answer"], True)
    ways[0].write(b"too late")
    await asyncio.sleep(0)
    assert (closed.sent, other.sent) == ([b"answer"], [b"answer"])


def test_a_loop_that_has_ended_is_not_kept() -> None:
    loop = asyncio.new_event_loop()
    departures(loop)
    loop.close()
    seen = ref(loop)
    del loop
    gc.collect()
    assert seen() is None
