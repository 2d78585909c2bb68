"""What handlers say to the relay, and what operators are told."""

from collections.abc import Collection

from picopay.kernel.errors import Refused


class Permanent(Exception):
    """Raised by a handler: no attempt will ever succeed, so there is none to come."""


class NotYet(Exception):
    """Raised by a handler: it is too early. Tried again after `seconds`; no attempt is counted."""

    def __init__(self, seconds: float, why: str) -> None:
        super().__init__(why)
        self.seconds = seconds


class LeaseLost(Exception):
    """The rows were leased anew meanwhile: what was done under the old lease does not count."""

    def __init__(self, keys: Collection[tuple[str, str, int]]) -> None:
        super().__init__(f"{len(keys)} leases were lost")
        self.keys = frozenset(keys)


class DeadLetterNotFound(Refused):
    code = "dead-letter-not-found"
