"""One call on its way: what is sent, how long a try may take, and what each outcome leads to.

All of a client that is neither waiting nor sending; time and chance are arguments.
"""

from typing import Generic, TypeVar

from picopay.client.options import Options
from picopay.client.retries import Done, Pause, Tried, settle
from picopay.client.wire import Call, Caller, Outcome, request_of

T = TypeVar("T")


class Errand(Generic[T]):
    """Every try sends the same request: the same key, the same id."""

    def __init__(self, call: Call[T], caller: Caller, options: Options, now: float) -> None:
        self._call = call
        self._limits = options.limits
        self._give_up_at = now + options.limits.deadline_seconds
        self._request_id = options.request_id()
        self._attempts = 0
        self.request = request_of(call, caller, self._request_id)

    def try_seconds(self, now: float) -> float:
        """How long the next try may take."""
        return min(self._limits.attempt_seconds, self._give_up_at - now)

    def heard(self, outcome: Outcome, now: float, chance: float) -> Done[T] | Pause:
        """Raises the `PicoPayError` that it ends with, if it does."""
        self._attempts += 1
        left = self._give_up_at - now
        tried = Tried(self._attempts, left, chance, self._request_id)
        return settle(self._call, outcome, tried, self._limits)
