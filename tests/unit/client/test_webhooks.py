"""Webhooks that come are taken if they are genuine; those that go out are signed as asked."""

from base64 import b64encode
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from standardwebhooks.webhooks import Webhook as Standard

from picopay.client import webhooks
from picopay.client.webhooks import Signer, WebhookRejected
from picopay.kernel.signing import Reason, Scheme

NOW = 1_800_000_000
SECRET = "whsec_" + b64encode(b"0123456789abcdef0123456789abcdef").decode()
BODY = b'{"type": "charge.succeeded", "amount": 19.90}'


def test_a_genuine_one_is_read_exactly() -> None:
    signature = Standard(SECRET).sign("msg_1", datetime.fromtimestamp(NOW, UTC), BODY.decode())
    headers = {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(NOW),
        "Webhook-Signature": signature,
    }
    webhook = webhooks.receive(BODY, headers.items(), ["an-older-secret", SECRET], now=NOW)
    assert webhook.data == {"type": "charge.succeeded", "amount": Decimal("19.90")}
    assert (webhook.id, webhook.signed_at) == ("msg_1", NOW)


@pytest.mark.parametrize("scheme", Scheme)
def test_what_a_signer_signs_is_received(scheme: Scheme) -> None:
    headers = Signer(SECRET, scheme, lambda: float(NOW)).headers(BODY)
    webhook = webhooks.receive(BODY, headers.items(), SECRET, scheme=scheme, now=NOW)
    assert webhook.data == {"type": "charge.succeeded", "amount": Decimal("19.90")}
    again = Signer(SECRET, scheme, lambda: float(NOW)).headers(BODY)
    assert again == headers, "each try says the same"


@pytest.mark.parametrize(
    ("body", "name", "now", "reason"),
    [
        (BODY + b" ", "webhook-id", NOW, Reason.MISMATCH),
        (BODY, "webhook-id", NOW + 301, Reason.TOO_OLD),
        (BODY, "webhook-id", NOW - 61, Reason.TOO_NEW),
        (BODY, "webhook-é", NOW, Reason.MISSING),
    ],
)
def test_what_is_not_genuine_is_rejected(body: bytes, name: str, now: int, reason: Reason) -> None:
    headers = dict(Signer(SECRET, Scheme.STANDARD, lambda: float(NOW)).headers(BODY))
    headers[name] = headers.pop("webhook-id")
    with pytest.raises(WebhookRejected) as raised:
        webhooks.receive(body, headers.items(), SECRET, now=now)
    assert raised.value.reason == reason


def test_a_genuine_one_that_is_no_json_is_rejected_too() -> None:
    headers = Signer(SECRET).headers(b"{")
    with pytest.raises(WebhookRejected, match="no JSON"):
        webhooks.receive(b"{", headers.items(), SECRET, scheme=Scheme.HEX)


@pytest.mark.parametrize(("scheme", "secret"), [(Scheme.HEX, ""), (Scheme.STANDARD, "whsec_")])
def test_nothing_is_signed_with_an_empty_secret(scheme: Scheme, secret: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        Signer(secret, scheme)
