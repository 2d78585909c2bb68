"""Signatures: right ones are valid; whatever else is sent gets a verdict, never an exception."""

import hmac
from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from picopay.kernel import signing
from picopay.kernel.signing import Headers, Reason, Scheme

NOW = 1_800_000_000
BODY = b'{"amount": 1500, "note": "\xc3\xa9"}'
SECRET = "whsec_" + b64encode(b"0123456789abcdef0123456789abcdef").decode()
OTHER = "whsec_" + b64encode(b"another secret of thirty-two byt").decode()


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


def signed(scheme: Scheme, body: bytes = BODY, secret: str = SECRET, now: int = NOW) -> Headers:
    match scheme:
        case Scheme.HEX:
            return raw(signing.sign_hex(body, secret))
        case Scheme.STANDARD:
            return raw(signing.sign_standard(body, secret, "msg_1", now))
        case Scheme.STRIPE:
            return raw(signing.sign_stripe(body, secret, now))


def reason(scheme: Scheme, headers: Headers, *, body: bytes = BODY, now: float = NOW) -> Reason:
    return signing.verify(scheme, body, headers, [SECRET], now).reason


@pytest.mark.parametrize("scheme", Scheme)
def test_what_we_sign_is_valid_and_names_its_secret(scheme: Scheme) -> None:
    verdict = signing.verify(scheme, BODY, signed(scheme), [OTHER, SECRET], NOW)
    assert (verdict.reason, verdict.secret_number) == (Reason.VALID, 1)
    assert verdict.external_id == ("msg_1" if scheme is Scheme.STANDARD else None)
    assert verdict.signed_at == (None if scheme is Scheme.HEX else NOW)


@pytest.mark.parametrize("scheme", Scheme)
def test_another_secret_or_body_does_not_match(scheme: Scheme) -> None:
    assert reason(scheme, signed(scheme, secret=OTHER)) is Reason.MISMATCH
    assert reason(scheme, signed(scheme), body=BODY + b" ") is Reason.MISMATCH
    assert reason(scheme, []) is Reason.MISSING


def test_a_secret_that_decodes_to_nothing_matches_nothing() -> None:
    digest = hmac.new(b"", b"msg_1.%d.%b" % (NOW, BODY), sha256).digest()
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW)}
    headers |= {"webhook-signature": f"v1,{b64encode(digest).decode()}"}
    for secret in ("", "whsec_"):
        verdict = signing.verify(Scheme.STANDARD, BODY, raw(headers), [secret], NOW)
        assert verdict.reason is Reason.MISMATCH


@pytest.mark.parametrize("scheme", Scheme)
def test_no_secret_matches_nothing(scheme: Scheme) -> None:
    assert signing.verify(scheme, BODY, signed(scheme), [], NOW).reason is Reason.MISMATCH


@pytest.mark.parametrize("scheme", [Scheme.STANDARD, Scheme.STRIPE])
@pytest.mark.parametrize(
    ("age", "wanted"),
    [
        (300, Reason.VALID),
        (301, Reason.TOO_OLD),
        (-60, Reason.VALID),
        (-61, Reason.TOO_NEW),
    ],
)
def test_signatures_age(scheme: Scheme, age: int, wanted: Reason) -> None:
    assert reason(scheme, signed(scheme), now=NOW + age) is wanted


def test_what_we_sign_is_valid_to_others() -> None:
    now = int(datetime.now(UTC).timestamp())
    standard = signing.sign_standard(BODY, SECRET, "msg_1", now)
    Webhook(SECRET).verify(BODY.decode(), standard)
    header = signing.sign_stripe(BODY, "a secret", now)["Stripe-Signature"]
    stripe.WebhookSignature.verify_header(BODY.decode(), header, "a secret", 300)  # pyright: ignore[reportUnknownMemberType] - its own


def test_what_others_sign_is_valid_to_us() -> None:
    at = datetime.fromtimestamp(NOW, UTC)
    signature = Webhook(SECRET).sign("msg_2", at, BODY.decode())
    headers = {"webhook-id": "msg_2", "webhook-timestamp": str(NOW), "webhook-signature": signature}
    assert reason(Scheme.STANDARD, raw(headers)) is Reason.VALID


def test_a_vector_of_the_standard_webhooks_specification() -> None:
    """From its reference libraries' tests."""
    body = b'{"test": 2432232314}'
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = raw(
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        }
    )
    verdict = signing.verify(Scheme.STANDARD, body, headers, [secret], 1614265330)
    assert verdict.reason is Reason.VALID


def test_one_of_several_signatures_is_enough() -> None:
    headers = dict(signed(Scheme.STANDARD))
    old = dict(signed(Scheme.STANDARD, secret=OTHER))[b"webhook-signature"]
    headers[b"webhook-signature"] = (
        b"v1a,c29tZXRoaW5n " + old + b" " + headers[b"webhook-signature"]
    )
    assert reason(Scheme.STANDARD, list(headers.items())) is Reason.VALID


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"stripe-signature": f"t={NOW},t={NOW},v1={'0' * 64}"}, Reason.MALFORMED),
        ({"stripe-signature": f"v1={'0' * 64}"}, Reason.MALFORMED),
        ({"stripe-signature": f"t={NOW},v0={'0' * 64}"}, Reason.MALFORMED),
        ({"stripe-signature": f"t=1.5,v1={'0' * 64}"}, Reason.MALFORMED),
        (
            {"stripe-signature": "t=" + ",".join([str(NOW), *["v1=" + "0" * 64] * 9])},
            Reason.MALFORMED,
        ),
        ({"stripe-signature": f"t=٣,v1={'0' * 64}".encode().decode("latin-1")}, Reason.MALFORMED),
    ],
)
def test_a_malformed_header_is_told(headers: dict[str, str], wanted: Reason) -> None:
    assert reason(Scheme.STRIPE, raw(headers)) is wanted


@pytest.mark.parametrize("scheme", Scheme)
def test_a_repeated_header_is_refused(scheme: Scheme) -> None:
    headers = list(signed(scheme))
    assert reason(scheme, [*headers, headers[-1]]) is Reason.REPEATED


NAMES = [
    b"x-signature",
    b"stripe-signature",
    b"webhook-id",
    b"webhook-timestamp",
    b"webhook-signature",
]


@given(
    st.sampled_from(Scheme),
    st.binary(max_size=50),
    st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=100)), max_size=6),
    st.lists(st.text(max_size=20), max_size=3),
)
def test_whatever_a_stranger_sends_there_is_a_verdict_and_it_is_not_valid(
    scheme: Scheme, body: bytes, headers: list[tuple[bytes, bytes]], secrets: list[str]
) -> None:
    secrets = [s.encode(errors="replace").decode() for s in secrets]
    assert signing.verify(scheme, body, headers, secrets, NOW).reason is not Reason.VALID


@given(st.sampled_from(Scheme), st.data())
def test_a_header_with_one_byte_changed_is_not_valid(scheme: Scheme, data: st.DataObject) -> None:
    headers = list(signed(scheme))
    name, value = headers.pop()
    at = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != value[at]))
    changed = value[:at] + bytes([other]) + value[at + 1 :]
    verdict = reason(scheme, [*headers, (name, changed)])
    # Upper-case hex means the same; so does a space at either end.
    assert verdict is not Reason.VALID or changed.strip().lower() == value.lower()
