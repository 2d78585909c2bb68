"""Every setting, read once from the environment and `.env`; nothing else reads them."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import quote

from pydantic import Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

# Values that stand in examples, compose files and tutorials, ours and other people's.
PLACEHOLDERS = frozenset(
    {
        "change-me",
        "changeme",
        "dev-admin-secret",
        "dev-webhook-secret",
        "password",
        "secret",
        "test",
        "your-api-key",
        "your-secret-api-key",
        "your-secret-api-key-change-in-production",
    }
)

_NO_URL: Final = "not a postgresql://user:password@host:port/database URL"

Secret = Annotated[str, StringConstraints(strip_whitespace=True)]


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Settings(BaseSettings):
    """An empty variable counts as unset. `docs/reference/settings.md` is made from these fields."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
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
        description="What a request waits for Redis at most; then without it.",
    )
    app_api_key: Secret | None = Field(
        default=None,
        description="Bootstrap API key with every scope. Unset in development with embedded "
        "servers: one is generated and kept in the data directory.",
    )
    cache_ttl: int = Field(
        default=86_400, ge=1, description="Seconds for which Redis keeps a replay."
    )
    charge_queue_max: int = Field(
        default=10_000,
        ge=1,
        description="Charges waiting, per process; beyond it 503 `overloaded`.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe log line that is written."
    )
    log_format: Literal["console", "json"] | None = Field(
        default=None, description="`console` on a terminal, else `json`."
    )

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        for url in (self.database_url, self.migration_database_url):
            if url is not None:
                sqlalchemy_url(url)
        if self.redis_url is None and self.redis_host is not None:
            password = f":{quote(self.redis_password, safe='')}@" if self.redis_password else ""
            self.redis_url = (
                f"redis://{password}{self.redis_host}:{self.redis_port}/{self.redis_db}"
            )
        if self.picopay_env is None:
            external = self.database_url is not None
            self.picopay_env = Environment.PRODUCTION if external else Environment.DEVELOPMENT
        return self

    @property
    def production(self) -> bool:
        return self.picopay_env is Environment.PRODUCTION

    @property
    def owner_url(self) -> str | None:
        return self.migration_database_url or self.database_url


def sqlalchemy_url(url: str) -> URL:
    """The URL for our driver, whatever driver it was written for; raises ValueError."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError(_NO_URL) from None
    if not parsed.drivername.startswith(("postgresql", "postgres")) or not parsed.database:
        raise ValueError(_NO_URL)
    query = dict(parsed.query)
    if "sslmode" in query:  # libpq's name; asyncpg calls it ssl
        query["ssl"] = query.pop("sslmode")
    return parsed.set(drivername="postgresql+asyncpg", query=query)


def export(settings: Settings) -> None:
    """Hand the resolved settings to the processes that this one starts."""
    for name, value in settings.model_dump(mode="json", exclude_none=True).items():
        os.environ[name.upper()] = str(value)


_METRICS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"


def share_metrics(directory: Path) -> None:
    """Where prometheus-client's processes share their counters; it reads only the environment."""
    os.environ[_METRICS_DIR] = str(directory)


def metrics_folder() -> Path | None:
    """None when there is only one process."""
    return Path(os.environ[_METRICS_DIR]) if _METRICS_DIR in os.environ else None
