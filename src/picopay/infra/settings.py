"""Every setting, read once from the environment, `.env` and files; nothing else reads them."""

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import quote

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from picopay.infra.networks import networks
from picopay.infra.urls import http_url, origins, redis_url, sqlalchemy_url
from picopay.kernel.money import EXPONENTS
from picopay.kernel.signing import Scheme, is_key

# What the fake payment provider's knobs may be turned to, here and for each payment.
FAKE_PAYMENT_DELAY_SECONDS_MAX: Final = 86_400
FAKE_PAYMENT_DUPLICATES_MAX: Final = 20
FAKE_PAYMENT_REORDER_SECONDS_MAX: Final = 3600
FAKE_PAYMENT_SILENCE_SECONDS_MAX: Final = 60

PER_MINUTE_MAX: Final = 100_000
# Where Compose and our Kubernetes manifests put secrets: a file for each, named as its setting.
SECRETS_DIR: Final = Path("/run/secrets")

Secret = Annotated[str, StringConstraints(strip_whitespace=True)]


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Settings(BaseSettings):
    """What is empty counts as unset. `docs/reference/settings.md` is made from these fields."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        secrets_dir=SECRETS_DIR if SECRETS_DIR.is_dir() else None,
        extra="ignore",
        case_sensitive=False,
        hide_input_in_errors=True,  # it holds passwords
    )

    database_url: str | None = Field(
        default=None,
        description="`postgresql://user:password@host:port/database`; any driver suffix is "
        "accepted. Unset: an embedded PostgreSQL under the data directory.",
    )
    migration_database_url: str | None = Field(
        default=None, description="The schema owner's URL, for migrations. Default: `DATABASE_URL`."
    )
    db_pool_size: int = Field(default=10, ge=2, description="Connections kept open, per process.")
    db_max_overflow: int = Field(default=20, ge=0, description="Further connections under load.")
    picopay_data_dir: Path = Field(
        default=Path(".picopay"), description="Where the embedded servers keep their data."
    )
    picopay_env: Environment | None = Field(
        default=None,
        description="`development` (default with embedded servers) or `production` (default with "
        "`DATABASE_URL`), which refuses to start with unsafe settings.",
    )
    redis_url: str | None = Field(
        default=None,
        description="`redis://…`. Takes precedence over `REDIS_HOST` and its companions.",
    )
    redis_host: str | None = Field(default=None, description="Redis or Valkey host.")
    redis_port: int = Field(default=6379, ge=1, le=65535, description="Its port.")
    redis_db: int = Field(default=0, ge=0, description="Its database number.")
    redis_password: Secret | None = Field(default=None, description="Its password.")
    redis_timeout_ms: int = Field(
        default=50,
        ge=1,
        le=5000,
        description="How long one trip to Redis may take; then without it.",
    )
    app_api_key: Secret | None = Field(
        default=None,
        description="Bootstrap API key with every scope. Unset in development with embedded "
        "servers: one is generated and kept in the data directory.",
    )
    admin_secret: Secret | None = Field(
        default=None,
        description="What `X-Admin-Secret` must hold on `/admin` routes. Unset in development with "
        "embedded servers: one is generated and kept in the data directory.",
    )
    shop_currency: str = Field(
        default="USD",
        description="ISO 4217 code of products' prices. What is priced already keeps its currency, "
        "and is for sale again once its price is set anew.",
    )
    cache_ttl: int = Field(
        default=86_400, ge=1, description="Seconds for which Redis keeps a replay."
    )
    charge_queue_max: int = Field(
        default=10_000,
        ge=1,
        description="Charges waiting, per process, at any pace; beyond it 503 `overloaded`.",
    )
    outbox_max_attempts: int = Field(
        default=6, ge=1, le=100, description="Attempts to handle an event before it is given up."
    )
    outbox_retry_base_delay_seconds: float = Field(
        default=1,
        gt=0,
        le=3600,
        description="Delay after the first failed attempt; it doubles with each further one.",
    )
    outbox_lease_seconds: float = Field(
        default=30,
        ge=1,
        le=3600,
        description="How soon the events of a worker that died are taken over.",
    )
    outbox_retention_days: float = Field(
        default=30, gt=0, description="For how long events are kept once they are done."
    )
    ledger_check_interval_seconds: float = Field(
        default=3600,
        ge=0,
        description="How often one of the processes that show metrics checks the whole ledger, as "
        "`picopay ledger check` does, for `ledger_drift`; 0: never.",
    )
    picopay_worker: bool = Field(
        default=True,
        description="Whether `picopay serve` does background work too; `--no-worker` says no.",
    )
    transaction_processing_delay_seconds: float = Field(
        default=30, ge=0, description="From the receipt of a transaction to its processing."
    )
    transaction_webhook_secret: Secret | None = Field(
        default=None,
        description="Signs transaction webhooks; several, separated by commas, while one replaces "
        "another. Unset: unsigned ones are accepted, in development only.",
    )
    transaction_webhook_scheme: Scheme = Field(
        default=Scheme.HEX,
        description="How they are signed: `hmac-sha256-hex` (`X-Signature`), `standard-webhooks` "
        "or `stripe`.",
    )
    transaction_webhook_unsigned: bool = Field(
        default=False, description="Accept unsigned transaction webhooks in production too."
    )
    transactions_require_api_key: bool = Field(
        default=False,
        description="Ask for an API key with scope `transactions` also for a single transaction.",
    )
    rate_limit_orders_per_minute: int = Field(
        default=5,
        ge=0,
        le=PER_MINUTE_MAX,
        description="Orders that one e-mail address may place in any 60 seconds; 0: no limit.",
    )
    rate_limit_orders_per_address_per_minute: int = Field(
        default=600,
        ge=0,
        le=PER_MINUTE_MAX,
        description="Orders from one client address (of IPv6: one /64) in any 60 seconds; "
        "0: no limit.",
    )
    trusted_proxies: str | None = Field(
        default=None,
        description="Networks of the proxies in front, such as `10.0.0.0/8,fd00::/8`, whose "
        "`X-Forwarded-For` or `Forwarded` tells the client's address. Nobody else's is believed.",
    )
    cors_origins: str | None = Field(
        default=None,
        description="Origins whose pages may call the API from a browser, such as "
        "`https://shop.example`, exact and separated by commas. Unset: none may.",
    )
    api_docs: bool = Field(
        default=True, description="Whether `/docs`, `/redoc` and `/openapi.json` are served."
    )
    metrics_token: Secret | None = Field(
        default=None,
        description="What `/metrics` asks for, as `Authorization: Bearer`. Unset: nothing.",
    )
    picopay_url: str = Field(
        default="http://127.0.0.1:8000",
        description="Where this system reaches itself, for callbacks of the fake payment provider. "
        "`picopay serve` fills in its own host and port unless it is set; tell it to a "
        "`picopay worker` beside a server on another port.",
    )
    payment_webhook_secret: Secret | None = Field(
        default=None,
        description="Signs payment callbacks; several, separated by commas, while one replaces "
        "another: the first signs. Unset in development: one is generated and kept in the data "
        "directory. Production refuses to start without it, unless `PAYMENT_PROVIDER` is `wallet` "
        "and the fake provider is off: then nothing uses it.",
    )
    fake_payment_enabled: bool | None = Field(
        default=None,
        description="The fake payment provider, for development: whoever reaches it can have any "
        "URL called. Default: on with embedded servers, else off.",
    )
    fake_payment_success_rate: float = Field(
        default=0.8, ge=0, le=1, description="Which part of its payments succeeds."
    )
    fake_payment_outcome: Literal["success", "failed"] | None = Field(
        default=None, description="How each of them ends, whatever the success rate."
    )
    fake_payment_delay_seconds: float = Field(
        default=1,
        ge=0,
        le=FAKE_PAYMENT_DELAY_SECONDS_MAX,
        description="From a payment's creation to its end, and its callback.",
    )
    fake_payment_duplicates: int = Field(
        default=1,
        ge=1,
        le=FAKE_PAYMENT_DUPLICATES_MAX,
        description="How often each callback is sent.",
    )
    fake_payment_reorder_seconds: float = Field(
        default=0,
        ge=0,
        le=FAKE_PAYMENT_REORDER_SECONDS_MAX,
        description="Each callback is late by a random part of it, so that they overtake others.",
    )
    fake_payment_silence_seconds: float = Field(
        default=0,
        ge=0,
        le=FAKE_PAYMENT_SILENCE_SECONDS_MAX,
        description="A payment is kept at once, but its creation answered so much later.",
    )
    fake_payment_lose: bool = Field(
        default=False, description="No callback is sent; asking for the payment tells its end."
    )
    fake_payment_conflicting: bool = Field(
        default=False, description="Both `success` and `failed` are told of each payment."
    )
    payment_provider: Literal["fake", "manual", "wallet"] | None = Field(
        default=None,
        description="Who is asked for an order's money: `fake` (default while it is enabled), "
        "`manual` (else: nobody, a signed callback comes) or `wallet` (a user's balance).",
    )
    order_payment_timeout_seconds: float = Field(
        default=900, gt=0, description="After it an order without its payment is canceled."
    )
    orders_require_api_key: bool = Field(
        default=False,
        description="Ask for an API key with scope `orders`; PAYMENT_PROVIDER=wallet always does.",
    )
    shutdown_drain_seconds: float = Field(
        default=0,
        ge=0,
        le=600,
        description="From SIGTERM until no more connections are accepted. Meanwhile `/readyz` "
        "answers 503 and every answer closes its connection, so that a load balancer sends nobody "
        "more. A second SIGTERM, or SIGINT, ends it at once.",
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        default=None,
        description="Where traces are sent by OTLP/HTTP, such as `http://localhost:4318`; "
        "OpenTelemetry's other variables hold as well. Unset: nothing is traced.",
    )
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = Field(default="INFO", description="Least severe log line that is written.")
    log_format: Literal["console", "json"] | None = Field(
        default=None, description="`console` on a terminal, else `json`."
    )

    @model_validator(mode="before")
    @classmethod
    def _told(cls, values: dict[str, object]) -> dict[str, object]:
        """A file may be as empty as a variable, and blanks are no secret."""
        return {name: v for name, v in values.items() if not isinstance(v, str) or v.strip()}

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        if self.redis_url is None and self.redis_host is not None:
            password = f":{quote(self.redis_password, safe='')}@" if self.redis_password else ""
            self.redis_url = (
                f"redis://{password}{self.redis_host}:{self.redis_port}/{self.redis_db}"
            )
        networks(self.trusted_proxies)
        origins(self.cors_origins)
        if self.shop_currency not in EXPONENTS:
            raise ValueError("SHOP_CURRENCY is not an ISO 4217 currency code in use")
        if self.picopay_env is None:
            external = self.database_url is not None
            self.picopay_env = Environment.PRODUCTION if external else Environment.DEVELOPMENT
        if self.fake_payment_enabled is None:
            self.fake_payment_enabled = self.database_url is None
        return self

    @field_validator("database_url", "migration_database_url")
    @classmethod
    def _database(cls, url: str | None) -> str | None:
        _ = url and sqlalchemy_url(url)  # which refuses what is none
        return url

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, url: str | None) -> str | None:
        return None if url is None else redis_url(url)

    @field_validator("transaction_webhook_secret", "payment_webhook_secret")
    @classmethod
    def _secret(cls, secrets: str | None) -> str | None:
        if not all(is_key(Scheme.STANDARD, secret) for secret in _several(secrets)):
            raise ValueError("a secret that decodes to nothing is none")
        return secrets

    @field_validator("picopay_url", "otel_exporter_otlp_endpoint")
    @classmethod
    def _without_slash(cls, url: str | None) -> str | None:
        return None if url is None else http_url(url).rstrip("/")

    @property
    def production(self) -> bool:
        return self.picopay_env is Environment.PRODUCTION

    @property
    def provider(self) -> Literal["fake", "manual", "wallet"]:
        return self.payment_provider or ("fake" if self.fake_payment_enabled else "manual")

    @property
    def transaction_webhook_secrets(self) -> list[str]:
        return _several(self.transaction_webhook_secret)

    @property
    def payment_webhook_secrets(self) -> list[str]:  # the first signs, any of them verifies
        return _several(self.payment_webhook_secret)

    @property
    def uses_payment_webhook_secret(self) -> bool:
        """Whether there is anything to sign or to verify with it."""
        return self.provider != "wallet" or self.fake_payment_enabled is True

    @property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return networks(self.trusted_proxies)

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        return origins(self.cors_origins)

    @property
    def owner_url(self) -> str | None:
        return self.migration_database_url or self.database_url


def _several(secrets: str | None) -> list[str]:
    return [secret for part in (secrets or "").split(",") if (secret := part.strip())]
