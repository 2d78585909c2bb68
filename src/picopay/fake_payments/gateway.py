"""The call back: one signed POST to whoever waits for a payment's end."""

from typing import Final, NamedTuple

from picopay.fake_payments.model import Outcome
from picopay.infra.http import Http
from picopay.infra.json import dump
from picopay.kernel import signing

_JSON: Final = {"Content-Type": "application/json"}


class CallbackRefused(Exception):
    """Answered otherwise than 2xx: another attempt may be taken."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the callback was answered {status}")


class Message(NamedTuple):
    """A callback as it is sent: `status` is the word for the payment's end."""

    payment_id: str
    order_id: str
    status: Outcome

    @property
    def body(self) -> bytes:
        return dump(self._asdict())


async def call_back(http: Http, url: str, message: Message, secret: str) -> None:
    """Raises `CallbackRefused`, `Unreachable` or `Unanswered`."""
    body = message.body
    answer = await http.send("POST", url, body, _JSON | signing.sign_hex(body, secret))
    if answer.status // 100 != 2:  # noqa: PLR2004 - 2xx
        raise CallbackRefused(answer.status)
