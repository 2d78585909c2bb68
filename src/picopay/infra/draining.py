"""A server that is told to end says so first, and serves on while callers are sent elsewhere."""

import threading

_told = threading.Event()


def announce() -> None:
    _told.set()


def has_begun() -> bool:
    return _told.is_set()
