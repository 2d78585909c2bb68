"""What fake payments look like on the wire."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from picopay.fake_payments import rules
from picopay.fake_payments.model import Knobs, Outcome, Payment, PaymentCommand, PaymentStatus
from picopay.infra.ids import new_id
from picopay.infra.routing import AmountIn, CurrencyIn, MoneyOut, exact_number
from picopay.infra.settings import (
    FAKE_PAYMENT_DELAY_SECONDS_MAX,
    FAKE_PAYMENT_DUPLICATES_MAX,
    FAKE_PAYMENT_REORDER_SECONDS_MAX,
    FAKE_PAYMENT_SILENCE_SECONDS_MAX,
    Settings,
)
from picopay.infra.urls import URL_LENGTH_MAX, http_url
from picopay.kernel.errors import Invalid
from picopay.kernel.money import Money

CURRENCY_DEFAULT: Final = "USD"
_ORDER_ID_PATTERN: Final = r"^[\x21-\x7e]{1,150}$"

_SecondsIn = Annotated[float, BeforeValidator(exact_number)]
_UrlIn = Annotated[str, AfterValidator(http_url)]


class FakePaymentIn(BaseModel):
    """A payment to be made, in major units. What is left out of the knobs is as in the settings."""

    order_id: str = Field(
        pattern=_ORDER_ID_PATTERN,
        description="1 to 150 visible ASCII characters.",
        examples=["0198c6a2-7c1e-7000-8000-000000000000"],
    )
    amount: AmountIn
    currency: CurrencyIn = CURRENCY_DEFAULT
    callback_url: _UrlIn | None = Field(
        None,
        max_length=URL_LENGTH_MAX,
        description="Default: PicoPay's own "
        "`/payments/callback`; in production nothing but PicoPay's own.",
    )
    outcome: Literal["success", "failed"] | None = Field(
        None, description="How it ends, whatever the success rate."
    )
    delay_seconds: _SecondsIn | None = Field(
        None, ge=0, le=FAKE_PAYMENT_DELAY_SECONDS_MAX, description="Until it ends."
    )
    duplicates: int | None = Field(
        None,
        strict=True,
        ge=1,
        le=FAKE_PAYMENT_DUPLICATES_MAX,
        description="How often each callback is sent.",
    )
    reorder_seconds: _SecondsIn | None = Field(
        None,
        ge=0,
        le=FAKE_PAYMENT_REORDER_SECONDS_MAX,
        description="Each callback is late by a random part of it.",
    )
    silence_seconds: _SecondsIn | None = Field(
        None,
        ge=0,
        le=FAKE_PAYMENT_SILENCE_SECONDS_MAX,
        description="It is kept at once, but answered so much later.",
    )
    lose: bool | None = Field(None, strict=True, description="No callback is sent.")
    conflicting: bool | None = Field(
        None, strict=True, description="Both `success` and `failed` are told."
    )

    def to_command(self, key: str | None, settings: Settings) -> PaymentCommand:
        """Raises `Invalid` for what is not money, and for a callback to elsewhere in production."""
        _refuse_elsewhere(self.callback_url, settings)
        money = Money.parse(self.amount, self.currency)
        payment_id = new_id() if key is None else rules.payment_id(key)
        asked = self.model_dump(include=set(Knobs._fields), exclude_none=True)
        knobs = _defaults(settings)._replace(**asked)
        if knobs.outcome is not None:
            knobs = knobs._replace(outcome=Outcome(knobs.outcome))
        return PaymentCommand(payment_id, self.order_id, money, self.callback_url, knobs)


def _refuse_elsewhere(url: str | None, settings: Settings) -> None:
    """Whoever reaches the provider could have any address called that only we can reach."""
    if settings.production and url is not None and not url.startswith(f"{settings.picopay_url}/"):
        why = "must be below PICOPAY_URL in production"
        raise Invalid("the callback is not for us", ("callback_url", why))


def _defaults(settings: Settings) -> Knobs:
    forced = settings.fake_payment_outcome
    return Knobs(
        outcome=None if forced is None else Outcome(forced),
        delay_seconds=settings.fake_payment_delay_seconds,
        duplicates=settings.fake_payment_duplicates,
        reorder_seconds=settings.fake_payment_reorder_seconds,
        silence_seconds=settings.fake_payment_silence_seconds,
        lose=settings.fake_payment_lose,
        conflicting=settings.fake_payment_conflicting,
    )


@dataclass(frozen=True, slots=True)
class FakePaymentAcceptedOut:
    payment_id: UUID
    status: Literal["pending"] = "pending"


@dataclass(frozen=True, slots=True)
class FakeRefundOut:
    payment_id: UUID
    status: Literal["refunded"] = "refunded"


@dataclass(frozen=True, slots=True)
class FakePaymentOut:
    """`status` is `pending` until `settles_at`, whatever has been decided."""

    payment_id: UUID
    order_id: str
    amount: MoneyOut
    currency: str
    status: PaymentStatus
    callback_url: str | None
    outcome: Outcome | None
    delay_seconds: float
    duplicates: int
    reorder_seconds: float
    silence_seconds: float
    lose: bool
    conflicting: bool
    created_at: datetime
    settles_at: datetime
    refunded_at: datetime | None

    @classmethod
    def of(cls, payment: Payment) -> "FakePaymentOut":
        return cls(
            payment.id,
            payment.order_id,
            payment.money,
            payment.money.currency,
            rules.status_of(payment),
            payment.callback_url,
            *payment.knobs,
            payment.created_at,
            payment.settles_at,
            payment.refunded_at,
        )
