"""What a client may be told beyond where the server is and who calls."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ssl import SSLContext

from picopay.client.retries import Limits


def no_request_id() -> None:
    """The server makes one."""


@dataclass(frozen=True, slots=True)
class Options:
    """All of it has a default.

    `request_id` is asked once a call, and its answer sent as X-Request-ID: give it your own
    context variable's `get`, and your logs and PicoPay's tell the same story. `ssl_context` is
    for an authority of your own.
    """

    limits: Limits = field(default_factory=Limits)
    request_id: Callable[[], str | None] = no_request_id
    ssl_context: SSLContext | None = None


DEFAULTS = Options()
