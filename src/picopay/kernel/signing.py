"""Signatures of webhooks: HMAC-SHA256 over the raw bytes, in three schemes.

`verify` returns a verdict and never raises, whatever a stranger sends. Schemes:
- `hmac-sha256-hex`: `X-Signature: <hex>`, or `sha256=<hex>`, of the body. It knows no time, so it
  is no defence against replays by itself: what it signs must carry an id.
- `standard-webhooks`: https://github.com/standard-webhooks/standard-webhooks, version 1.0.0.
- `stripe`: `Stripe-Signature: t=…,v1=…`, https://docs.stripe.com/webhooks/signature.
"""

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

# Older than this is a replay; newer, a clock that is wrong.
PAST_SECONDS_MAX: Final = 300
FUTURE_SECONDS_MAX: Final = 60
HEADER_BYTES_MAX: Final = 4096
SIGNATURES_MAX: Final = 8
ID_LENGTH_MAX: Final = 256

_HEX: Final = re.compile("[0-9a-fA-F]{64}")
_SECONDS: Final = re.compile("[0-9]{1,12}")
_ID: Final = re.compile(rf"[\x21-\x2d\x2f-\x7e]{{1,{ID_LENGTH_MAX}}}")  # no dot: it separates

T = TypeVar("T")

Headers = Iterable[tuple[bytes, bytes]]


class Scheme(StrEnum):
    HEX = "hmac-sha256-hex"
    STANDARD = "standard-webhooks"
    STRIPE = "stripe"


class Reason(StrEnum):
    VALID = "valid"
    MISSING = "missing"
    REPEATED = "repeated"  # a header that must come once
    MALFORMED = "malformed"
    TOO_OLD = "too-old"
    TOO_NEW = "too-new"
    MISMATCH = "mismatch"


class Verdict(NamedTuple):
    """`secret_number` tells which of the secrets it was; `external_id` is signed with the body."""

    reason: Reason
    secret_number: int | None = None
    external_id: str | None = None
    signed_at: int | None = None


class _Signed(NamedTuple):
    """What a scheme's headers say: the bytes that are signed, and signatures to compare."""

    content: bytes
    digests: list[bytes]
    external_id: str | None = None
    signed_at: int | None = None


class _Rejected(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def verify(
    scheme: Scheme, body: bytes, headers: Headers, secrets: Sequence[str], now: float
) -> Verdict:
    """Whether one of the secrets has signed the body. `now` is in seconds since 1970."""
    try:
        signed = _READERS[scheme](body, list(headers))
        if signed.signed_at is not None:
            _check_time(signed.signed_at, now)
    except _Rejected as rejected:
        return Verdict(rejected.reason)
    for number, secret in enumerate(secrets):
        if not is_key(scheme, secret):
            continue  # anybody could sign with it
        digest = _digest(scheme, secret, signed.content)
        # All are compared: how long it takes tells nothing.
        if sum(hmac.compare_digest(digest, candidate) for candidate in signed.digests):
            return Verdict(Reason.VALID, number, signed.external_id, signed.signed_at)
    return Verdict(Reason.MISMATCH)


def is_key(scheme: Scheme, secret: str) -> bool:
    """Whether there is anything secret in it: `whsec_` alone decodes to nothing."""
    return bool(_key(scheme, secret))


def sign_hex(body: bytes, secret: str) -> dict[str, str]:
    """The headers of `hmac-sha256-hex`."""
    return {"X-Signature": _digest(Scheme.HEX, secret, body).hex()}


def sign_standard(body: bytes, secret: str, external_id: str, now: int) -> dict[str, str]:
    """The headers of `standard-webhooks`; the id stays the same at every try."""
    content = b"%b.%d.%b" % (external_id.encode(), now, body)
    signature = b64encode(_digest(Scheme.STANDARD, secret, content)).decode()
    return {
        "webhook-id": external_id,
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,{signature}",
    }


def sign_stripe(body: bytes, secret: str, now: int) -> dict[str, str]:
    """The header of `stripe`."""
    digest = _digest(Scheme.STRIPE, secret, b"%d.%b" % (now, body))
    return {"Stripe-Signature": f"t={now},v1={digest.hex()}"}


def _read_hex(body: bytes, headers: list[tuple[bytes, bytes]]) -> _Signed:
    text = _only(headers, b"x-signature").removeprefix("sha256=")
    return _Signed(body, [_unhex(text)])


def _read_standard(body: bytes, headers: list[tuple[bytes, bytes]]) -> _Signed:
    external_id = _only(headers, b"webhook-id")
    seconds = _seconds(_only(headers, b"webhook-timestamp"))
    if not _ID.fullmatch(external_id):
        raise _Rejected(Reason.MALFORMED)
    listed = _only(headers, b"webhook-signature").split(" ")
    digests = [_unbase64(text[3:]) for text in _few(listed) if text.startswith("v1,")]
    content = b"%b.%d.%b" % (external_id.encode(), seconds, body)
    return _Signed(content, _some(digests), external_id, seconds)


def _read_stripe(body: bytes, headers: list[tuple[bytes, bytes]]) -> _Signed:
    items = [item.partition("=") for item in _only(headers, b"stripe-signature").split(",")]
    times = [value for name, _, value in items if name.strip() == "t"]
    if len(times) != 1:
        raise _Rejected(Reason.MALFORMED)
    seconds = _seconds(times[0])
    digests = [_unhex(value) for name, _, value in _few(items) if name.strip() == "v1"]
    return _Signed(b"%d.%b" % (seconds, body), _some(digests), None, seconds)


_READERS: Final = {
    Scheme.HEX: _read_hex,
    Scheme.STANDARD: _read_standard,
    Scheme.STRIPE: _read_stripe,
}


def _digest(scheme: Scheme, secret: str, content: bytes) -> bytes:
    key = _key(scheme, secret)
    assert key, "start-up refuses a secret that is none"
    return hmac.new(key, content, sha256).digest()


def _key(scheme: Scheme, secret: str) -> bytes:
    key = secret.encode(errors="replace")
    if scheme is Scheme.STANDARD:  # secrets are shown in base64, most with a prefix
        with suppress(ValueError):  # or else an operator's own text: its bytes are the key
            key = b64decode(secret.removeprefix("whsec_"), validate=True)
    return key


def _check_time(signed_at: int, now: float) -> None:
    if signed_at < now - PAST_SECONDS_MAX:
        raise _Rejected(Reason.TOO_OLD)
    if signed_at > now + FUTURE_SECONDS_MAX:
        raise _Rejected(Reason.TOO_NEW)


def _only(headers: list[tuple[bytes, bytes]], name: bytes) -> str:
    values = [value for key, value in headers if key.lower() == name]
    if not values:
        raise _Rejected(Reason.MISSING)
    if len(values) > 1:
        raise _Rejected(Reason.REPEATED)
    if len(values[0]) > HEADER_BYTES_MAX or not values[0].isascii():
        raise _Rejected(Reason.MALFORMED)
    return values[0].decode().strip()


def _few(items: list[T]) -> list[T]:
    if len(items) > SIGNATURES_MAX:
        raise _Rejected(Reason.MALFORMED)
    return items


def _some(digests: list[bytes]) -> list[bytes]:
    """Versions that we do not know are passed over; one that we know there must be."""
    if not digests:
        raise _Rejected(Reason.MALFORMED)
    return digests


def _seconds(text: str) -> int:
    if not _SECONDS.fullmatch(text):
        raise _Rejected(Reason.MALFORMED)
    return int(text)


def _unhex(text: str) -> bytes:
    if not _HEX.fullmatch(text):
        raise _Rejected(Reason.MALFORMED)
    return bytes.fromhex(text)


def _unbase64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one
        raise _Rejected(Reason.MALFORMED) from None
