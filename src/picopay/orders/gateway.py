"""Calls to the payment provider: the only place that knows how it speaks."""

import re
from enum import StrEnum
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import quote
from uuid import UUID

import orjson

from picopay.infra.http import Answer, Http
from picopay.infra.json import dump
from picopay.kernel.money import Money
from picopay.orders.model import PAYMENT_ID, Result
from picopay.outbox.errors import Permanent

_DONE, _REFUSED = 2, 4  # hundreds
# Refusals that asking again may not meet.
_PASSING: Final = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}
_JSON: Final = {"Content-Type": "application/json"}


class ProviderFailed(Exception):
    """It answered what we cannot use; asking again may help."""


class Standing(StrEnum):
    """What a provider says of a payment when asked."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILED = "failed"
    REFUNDED = "refunded"

    @property
    def result(self) -> Result | None:
        """None while it does not know. Money that was given back already pays nothing."""
        if self is Standing.PENDING:
            return None
        return Result.SUCCESS if self is Standing.SUCCESS else Result.FAILED


class Gateway(NamedTuple):
    """A provider at `url`; each request may be repeated, and is done once."""

    http: Http
    url: str

    async def create_payment(self, order_id: UUID, amount: Money) -> str:
        """The payment's id. The key is made of order and step, never of the attempt.

        Raises `ProviderFailed`, `Permanent` when the request will never be accepted, and what
        `Http` raises.
        """
        body = {"order_id": order_id, "amount": amount, "currency": amount.currency}
        headers = _JSON | {"Idempotency-Key": f"{order_id}:payment"}
        answer = await self.http.send("POST", self.url, dump(body), headers)
        payment_id = _told(answer, "payment_id")
        if not isinstance(payment_id, str) or not re.fullmatch(PAYMENT_ID, payment_id):
            raise ProviderFailed("the provider's answer has no payment_id that could be one")
        return payment_id

    async def standing(self, payment_id: str) -> Standing:
        answer = await self.http.send("GET", self._of(payment_id), None, {})
        try:
            return Standing(str(_told(answer, "status")))
        except ValueError as error:
            raise ProviderFailed(str(error)) from None

    async def refund(self, payment_id: str) -> None:
        headers = _JSON | {"Idempotency-Key": f"{payment_id}:refund"}
        answer = await self.http.send("POST", f"{self._of(payment_id)}/refunds", b"{}", headers)
        _told(answer, "status")

    def _of(self, payment_id: str) -> str:
        """Whatever was called a payment's id, it names nothing else."""
        if payment_id in {".", ".."}:
            raise Permanent(f"{payment_id} is no payment's id")
        return f"{self.url}/{quote(payment_id, safe='')}"


def _told(answer: Answer, name: str) -> object:
    if answer.status // 100 == _REFUSED and answer.status not in _PASSING:
        raise Permanent(f"the provider refuses: {answer.status}")
    if answer.status // 100 != _DONE:
        raise ProviderFailed(f"the provider answers {answer.status}")
    try:
        return orjson.loads(answer.body)[name]
    except (ValueError, KeyError, TypeError):
        raise ProviderFailed(f"the provider's answer has no {name}") from None
