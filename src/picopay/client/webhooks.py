"""Webhooks: signing what is sent, and taking what comes only if its sender has signed it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from time import time

from picopay.client.fields import Malformed, decode
from picopay.kernel import signing
from picopay.kernel.signing import Reason, Scheme


class WebhookRejected(Exception):
    """Not from whom it should be, or not readable. Answer 401 or 400, and tell no more."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Webhook:
    """A genuine one. `data` is its JSON, numbers as `int` and `Decimal`.

    `id` and `signed_at` (seconds since 1970) are signed with it where the scheme has them. It may
    come more than once: what you do about it must not count twice.
    """

    data: object
    id: str | None
    signed_at: int | None


def receive(
    body: bytes,
    headers: Iterable[tuple[str, str]],
    secrets: str | Sequence[str],
    *,
    scheme: Scheme = Scheme.STANDARD,
    now: float | None = None,
) -> Webhook:
    """The webhook, if one of the secrets has signed these very bytes. Raises `WebhookRejected`.

    `body` is what came, byte for byte, and `headers` are its pairs: `request.headers.items()`.
    """
    raw = [
        (name.encode(errors="replace"), value.encode(errors="replace")) for name, value in headers
    ]
    known = [secrets] if isinstance(secrets, str) else secrets
    verdict = signing.verify(scheme, body, raw, known, time() if now is None else now)
    if verdict.reason is not Reason.VALID:
        raise WebhookRejected(verdict.reason)
    try:
        return Webhook(decode(body), verdict.external_id, verdict.signed_at)
    except Malformed as error:
        raise WebhookRejected(str(error)) from None


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs what is sent, under the secret and in the scheme that its receiver expects."""

    secret: str
    scheme: Scheme = Scheme.HEX
    now: Callable[[], float] = time

    def __post_init__(self) -> None:
        if not signing.is_key(self.scheme, self.secret):
            raise ValueError("the secret is empty: anybody could sign with it")

    def headers(self, body: bytes) -> Mapping[str, str]:
        """The headers that go with the body. Where the scheme wants an id, it is of the body."""
        match self.scheme:
            case Scheme.HEX:
                return signing.sign_hex(body, self.secret)
            case Scheme.STANDARD:
                digest = sha256(body).hexdigest()
                return signing.sign_standard(body, self.secret, digest, int(self.now()))
            case Scheme.STRIPE:
                return signing.sign_stripe(body, self.secret, int(self.now()))
