"""When a fake payment settles, whoever waits for it is told."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from picopay.fake_payments.gateway import Message, call_back
from picopay.fake_payments.model import CONSUMER, Outcome
from picopay.infra.http import Http
from picopay.infra.logs import log
from picopay.infra.settings import Settings
from picopay.outbox.consumer import Consumer
from picopay.outbox.errors import Permanent
from picopay.outbox.model import Event

CALLBACK_PATH: Final = "/payments/callback"
# A receiver that hangs holds one for as long as we wait for it.
CALLBACKS_AT_A_TIME: Final = 16


def consumer(settings: Settings, http: Http) -> Consumer:
    """Calls back for each event, at least once. Start-up has seen to it that there is a secret."""
    assert settings.payment_webhook_secrets, "PAYMENT_WEBHOOK_SECRET"
    secret = settings.payment_webhook_secrets[0]
    ours = settings.picopay_url + CALLBACK_PATH

    async def on_decided(event: Event) -> None:
        url, message = _read(event)
        await call_back(http, url or ours, message, secret)
        log.info(
            "fake_payment.told",
            payment_id=message.payment_id,
            status=message.status,
            request_id=event.request_id,
        )

    return Consumer(CONSUMER, alone=on_decided, concurrency=CALLBACKS_AT_A_TIME)


def _read(event: Event) -> tuple[str | None, Message]:
    try:
        told: Mapping[str, Any] = orjson.loads(event.body)
        message = Message(told["payment_id"], told["order_id"], Outcome(told["status"]))
        return told["callback_url"], message
    except (ValueError, KeyError, TypeError):
        raise Permanent(f"the body of event {event.id} is no callback") from None
