"""A burst of connections is let in soon, and never so many in a turn that others wait for long."""

import asyncio
import socket

from picopay.infra.accepting import ACCEPTED_A_TURN_MAX, ACCEPTED_FIRST, Loop

_BURST = 400
_BY_THE_LOOP_ITSELF = 1


class _Entrance:
    """Counts who came in, turn by turn of the loop."""

    def __init__(self) -> None:
        self.turns = [0]

    def let_in(self) -> asyncio.Protocol:
        self.turns[-1] += 1
        return asyncio.Protocol()


async def _let_in() -> list[int]:
    """How many of a burst that waits already come in each turn, until all are in."""
    entrance = _Entrance()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(entrance.let_in, "127.0.0.1", 0, backlog=2 * _BURST)
    clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(_BURST)]
    while sum(entrance.turns) < _BURST:
        await asyncio.sleep(0)
        entrance.turns.append(0)
    await asyncio.sleep(0.1)  # until the last are in altogether
    server.close()
    for client in clients:
        client.close()
    return [number for number in entrance.turns if number]


def test_a_burst_is_let_in_ever_faster_up_to_a_bound() -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        turns = runner.run(_let_in())
    assert sum(turns) == _BURST
    assert max(turns[:2]) <= ACCEPTED_FIRST + _BY_THE_LOOP_ITSELF
    assert max(turns) > ACCEPTED_A_TURN_MAX - ACCEPTED_FIRST
    assert max(turns) <= ACCEPTED_A_TURN_MAX + _BY_THE_LOOP_ITSELF
    assert len(turns) < _BURST / ACCEPTED_FIRST / 2
