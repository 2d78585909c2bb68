"""Named points of an event, in `picopay worker`, and of a replay, in `picopay dead-letters`."""

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from striking import Fault

Install = Callable[[Fault], None]

PROCESS: Final = ("picopay.transfers.service", "process")
GRACE_SECONDS: Final = 0.2


def strike_before(module: str, name: str) -> Install:
    def install(fault: Fault) -> None:
        original = _function(module, name)

        async def struck(context: Any, subjects: Any, *rest: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever it is given
            if fault.concerns(subjects) and fault.is_due():
                fault.strike()
            return await original(context, subjects, *rest, **options)

        _replace(module, name, struck)

    return install


def strike_after(module: str, name: str) -> Install:
    """When it has returned something; to find nothing is no point of an event."""

    def install(fault: Fault) -> None:
        original = _function(module, name)

        async def struck(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever it is given
            result = await original(*arguments, **options)
            if result != [] and fault.is_due():
                fault.strike()
            return result

        _replace(module, name, struck)

    return install


def strike_in_shutdown(fault: Fault) -> None:
    """The effect waits until the worker is told to end, and is struck while that waits for it."""
    told = _told_to_end()
    original = _function(*PROCESS)

    async def process(*arguments: Any) -> Any:  # noqa: ANN401 - whatever it is given
        fault.reached()
        await told.wait()
        result = await original(*arguments)
        if fault.is_due():
            fault.strike()
        return result

    _replace(*PROCESS, process)


def strike_in_give_back(fault: Fault) -> None:
    """The effect does not end within the grace, which is short, and its events are given back."""
    _replace("picopay.worker", "GRACE_SECONDS", GRACE_SECONDS)

    async def process(*_arguments: Any) -> None:  # noqa: ANN401 - whatever it is given
        fault.reached()
        await asyncio.Event().wait()

    _replace(*PROCESS, process)
    strike_before("picopay.outbox.service", "release")(fault)


def _told_to_end() -> asyncio.Event:
    """Set when the relay is stopped."""
    relay: Any = import_module("picopay.outbox.relay").Relay
    original = relay.stop
    told = asyncio.Event()

    async def stop(*arguments: Any) -> None:  # noqa: ANN401 - whatever it is given
        told.set()
        await original(*arguments)

    relay.stop = stop
    return told


def _function(module: str, name: str) -> Any:  # noqa: ANN401 - whatever it takes and returns
    return getattr(import_module(module), name)


def _replace(module: str, name: str, by: object) -> None:
    setattr(import_module(module), name, by)


POINTS: dict[str, Install] = {
    "after_claim": strike_after("picopay.outbox.service", "claim"),
    "before_effect": strike_before(*PROCESS),
    "after_effect": strike_after(*PROCESS),
    "before_ack": strike_before("picopay.outbox.store", "settle"),
    "after_ack": strike_after("picopay.outbox.service", "handle_together"),
    "in_dead_lettering": strike_after("picopay.transfers.service", "give_up"),
    "in_replay": strike_after("picopay.outbox.dead_letters_store", "requeue"),
    "in_shutdown": strike_in_shutdown,
    "in_give_back": strike_in_give_back,
}
