"""Settings: the documented names, from the environment and `.env`, and nothing unclear accepted."""

import ssl
from pathlib import Path

import pytest
from pydantic import ValidationError
from redis.asyncio.connection import parse_url
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from picopay.infra.settings import Environment, Settings
from picopay.infra.urls import sqlalchemy_url

URL = "postgresql://app:secret@db.example:5433/pay"


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `.env`, and nothing of the machine's own environment."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("DATABASE_URL", URL, URL),
        ("MIGRATION_DATABASE_URL", URL, URL),
        ("DB_POOL_SIZE", "3", 3),
        ("DB_MAX_OVERFLOW", "0", 0),
        ("PICOPAY_DATA_DIR", "/var/lib/picopay", Path("/var/lib/picopay")),
        ("PICOPAY_ENV", "production", Environment.PRODUCTION),
        ("REDIS_URL", "redis://cache:6380/2", "redis://cache:6380/2"),
        ("REDIS_HOST", "cache", "cache"),
        ("REDIS_PORT", "6380", 6380),
        ("REDIS_DB", "3", 3),
        ("REDIS_PASSWORD", "hunter2", "hunter2"),
        ("REDIS_TIMEOUT_MS", "75", 75),
        ("APP_API_KEY", "pk_live_x", "pk_live_x"),
        ("ADMIN_SECRET", "ours", "ours"),
        ("SHOP_CURRENCY", "JPY", "JPY"),
        ("CACHE_TTL", "60", 60),
        ("CHARGE_QUEUE_MAX", "5", 5),
        ("RATE_LIMIT_ORDERS_PER_MINUTE", "0", 0),
        ("RATE_LIMIT_ORDERS_PER_ADDRESS_PER_MINUTE", "100000", 100_000),
        ("TRUSTED_PROXIES", "10.0.0.0/8", "10.0.0.0/8"),
        ("PAYMENT_WEBHOOK_SECRET", "one, two", "one, two"),
        ("PICOPAY_URL", "https://pay.example/base/", "https://pay.example/base"),
        ("FAKE_PAYMENT_ENABLED", "false", False),
        ("FAKE_PAYMENT_SUCCESS_RATE", "0.5", 0.5),
        ("FAKE_PAYMENT_OUTCOME", "failed", "failed"),
        ("FAKE_PAYMENT_DELAY_SECONDS", "0", 0),
        ("FAKE_PAYMENT_DUPLICATES", "3", 3),
        ("FAKE_PAYMENT_REORDER_SECONDS", "0.5", 0.5),
        ("FAKE_PAYMENT_SILENCE_SECONDS", "60", 60),
        ("FAKE_PAYMENT_LOSE", "true", True),
        ("FAKE_PAYMENT_CONFLICTING", "true", True),
        ("LOG_LEVEL", "DEBUG", "DEBUG"),
        ("LOG_FORMAT", "json", "json"),
    ],
)
def test_each_setting_is_read_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    before = getattr(Settings(), name.lower())
    monkeypatch.setenv(name, text)
    assert getattr(Settings(), name.lower()) == value != before


def test_settings_left_alone_have_the_documented_defaults() -> None:
    settings = Settings()
    assert settings.database_url is None
    assert settings.redis_url is None
    assert settings.app_api_key is None
    assert settings.cache_ttl == 86_400
    assert settings.charge_queue_max == 10_000
    assert settings.redis_timeout_ms == 50
    assert settings.redis_port == 6379
    assert settings.picopay_data_dir == Path(".picopay")
    assert settings.rate_limit_orders_per_minute == 5
    assert settings.rate_limit_orders_per_address_per_minute == 600
    assert settings.trusted_networks == ()
    assert settings.log_level == "INFO"


def test_the_dotenv_file_is_read_below_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("CACHE_TTL=60\nREDIS_TIMEOUT_MS=75\nUNKNOWN=1\n")
    monkeypatch.setenv("CACHE_TTL", "61")
    settings = Settings()
    assert (settings.cache_ttl, settings.redis_timeout_ms) == (61, 75)


def _secrets(folder: Path) -> Settings:
    return Settings(_secrets_dir=folder)  # pyright: ignore[reportCallIssue] - pydantic-settings' own


def test_a_file_of_secrets_is_read_below_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app_api_key").write_text("pk_file\n")
    (tmp_path / "ADMIN_SECRET").write_text(" from a file \n")
    (tmp_path / "database_url").write_text(URL)
    (tmp_path / "postgres_password").write_text("somebody else's")
    settings = _secrets(tmp_path)
    assert (settings.app_api_key, settings.admin_secret) == ("pk_file", "from a file")
    assert settings.database_url == URL
    assert settings.production
    Path(".env").write_text("APP_API_KEY=pk_dotenv\n")
    assert _secrets(tmp_path).app_api_key == "pk_dotenv"
    monkeypatch.setenv("APP_API_KEY", "pk_environment")
    assert _secrets(tmp_path).app_api_key == "pk_environment"
    monkeypatch.setenv("APP_API_KEY", "")
    assert _secrets(tmp_path).app_api_key == "pk_dotenv"


def test_secrets_are_read_as_kubernetes_mounts_them(tmp_path: Path) -> None:
    """Each a link into `..data`, which is a link to the folder of the present version."""
    (tmp_path / "..2026_01").mkdir()
    (tmp_path / "..2026_01" / "admin_secret").write_text("ours")
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "admin_secret").symlink_to("..data/admin_secret")
    assert _secrets(tmp_path).admin_secret == "ours"


@pytest.mark.parametrize("text", ["", "\n", " "])
def test_an_empty_file_or_a_blank_variable_is_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "admin_secret").write_text(text)
    monkeypatch.setenv("APP_API_KEY", text)
    settings = _secrets(tmp_path)
    assert (settings.admin_secret, settings.app_api_key) == (None, None)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    default = getattr(Settings(), name)
    monkeypatch.setenv(name.upper(), "")
    assert getattr(Settings(), name) == default


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DATABASE_URL", "mysql://app@db/pay"),
        ("DATABASE_URL", "postgresql://app@db"),
        ("DATABASE_URL", "not a url"),
        ("MIGRATION_DATABASE_URL", "sqlite:///pay.db"),
        ("DB_POOL_SIZE", "1"),
        ("DB_POOL_SIZE", "many"),
        ("DB_MAX_OVERFLOW", "-1"),
        ("PICOPAY_ENV", "staging"),
        ("REDIS_URL", "nonsense"),
        ("REDIS_URL", "http://cache:6379"),
        ("REDIS_PORT", "0"),
        ("REDIS_PORT", "65536"),
        ("REDIS_DB", "-1"),
        ("REDIS_TIMEOUT_MS", "0"),
        ("REDIS_TIMEOUT_MS", "5001"),
        ("SHOP_CURRENCY", "usd"),
        ("SHOP_CURRENCY", "XXX"),
        ("CACHE_TTL", "0"),
        ("CHARGE_QUEUE_MAX", "0"),
        ("RATE_LIMIT_ORDERS_PER_MINUTE", "-1"),
        ("RATE_LIMIT_ORDERS_PER_MINUTE", "100001"),
        ("RATE_LIMIT_ORDERS_PER_ADDRESS_PER_MINUTE", "many"),
        ("TRUSTED_PROXIES", "proxy.example"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "*"),
        ("PICOPAY_URL", "ftp://pay.example"),
        ("PICOPAY_URL", "http://user:password@pay.example"),
        ("PICOPAY_URL", "pay.example:8000"),
        ("FAKE_PAYMENT_SUCCESS_RATE", "1.1"),
        ("FAKE_PAYMENT_SUCCESS_RATE", "nan"),
        ("FAKE_PAYMENT_OUTCOME", "won"),
        ("FAKE_PAYMENT_DELAY_SECONDS", "-1"),
        ("FAKE_PAYMENT_DELAY_SECONDS", "inf"),
        ("FAKE_PAYMENT_DELAY_SECONDS", "nan"),
        ("FAKE_PAYMENT_DUPLICATES", "0"),
        ("FAKE_PAYMENT_REORDER_SECONDS", "3601"),
        ("FAKE_PAYMENT_SILENCE_SECONDS", "61"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_bad_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ValidationError):
        Settings()


def test_a_refusal_does_not_repeat_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://app:hunter2@db/pay")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "scheme",
    [
        "postgresql",
        "postgres",
        "postgresql+asyncpg",
        "postgresql+psycopg2",
        "postgresql+psycopg",
        "postgresql+pg8000",
    ],
)
def test_any_driver_suffix_means_our_driver(scheme: str) -> None:
    url = sqlalchemy_url(f"{scheme}://app:s%40cret@db.example:5433/pay")
    assert url.drivername == "postgresql+asyncpg"
    assert (url.username, url.password) == ("app", "s@cret")
    assert (url.host, url.port, url.database) == ("db.example", 5433, "pay")


def test_libpqs_sslmode_is_told_to_the_driver_in_its_own_words() -> None:
    url = sqlalchemy_url(f"{URL}?sslmode=require")
    _, given = create_engine(url).dialect.create_connect_args(url)
    assert given["dsn"] == "postgresql://?sslmode=require"
    assert dict(sqlalchemy_url(f"{URL}?ssl=require").query) == dict(url.query)


async def test_libpqs_certificates_reach_the_driver(tmp_path: Path) -> None:
    """It reads the file before it connects anywhere."""
    (tmp_path / "ca.pem").write_text("no certificate")
    for mode, name in (("verify-full", "sslrootcert"), ("require", "sslcert")):
        told = f"{URL}?sslmode={mode}&{name}={tmp_path / 'ca.pem'}"
        engine = create_async_engine(sqlalchemy_url(told))
        with pytest.raises(ssl.SSLError):
            await engine.connect()


@pytest.mark.parametrize("option", ["connect_timeout=5", "application_name=x", "sslcertt=x"])
def test_an_option_that_the_driver_does_not_take_is_named(option: str) -> None:
    name = option.partition("=")[0]
    with pytest.raises(ValueError, match=f"the option {name} is not one of sslmode"):
        sqlalchemy_url(f"{URL}?{option}")


def test_a_database_of_ones_own_means_production_unless_told_otherwise() -> None:
    assert not Settings().production
    assert Settings(database_url=URL).production
    assert not Settings(database_url=URL, picopay_env=Environment.DEVELOPMENT).production


def test_the_fake_provider_is_on_with_embedded_servers_only_unless_told_otherwise() -> None:
    assert Settings().fake_payment_enabled is True
    assert Settings(database_url=URL).fake_payment_enabled is False
    assert Settings(database_url=URL, fake_payment_enabled=True).fake_payment_enabled is True


def test_the_first_of_several_payment_secrets_signs() -> None:
    assert Settings(payment_webhook_secret=" new , old,").payment_webhook_secrets == ["new", "old"]
    assert Settings(payment_webhook_secret=" , ").payment_webhook_secrets == []


def test_the_owner_is_the_app_unless_a_migration_url_is_given() -> None:
    owner = "postgresql://owner@db.example/pay"
    assert Settings(database_url=URL).owner_url == URL
    assert Settings(database_url=URL, migration_database_url=owner).owner_url == owner


def test_a_redis_host_and_its_companions_make_a_url() -> None:
    assert Settings(redis_host="cache").redis_url == "redis://cache:6379/0"
    settings = Settings(redis_host="cache", redis_port=6380, redis_db=2, redis_password="pw")
    assert settings.redis_url == "redis://:pw@cache:6380/2"


def test_a_redis_password_of_any_characters_reaches_redis() -> None:
    settings = Settings(redis_host="cache", redis_password="p@ss/w:rd#%20?")
    assert settings.redis_url is not None
    given = parse_url(settings.redis_url)
    assert (given.get("host"), given.get("password")) == ("cache", "p@ss/w:rd#%20?")


def test_a_redis_url_takes_precedence_over_the_host() -> None:
    settings = Settings(redis_url="redis://one/1", redis_host="two")
    assert settings.redis_url == "redis://one/1"


def test_blanks_around_a_secret_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_API_KEY", " pk_live_x\n")
    assert Settings().app_api_key == "pk_live_x"


def test_trusted_proxies_are_networks_and_single_addresses_of_both_families() -> None:
    told = Settings(trusted_proxies=" 10.0.0.0/8, 192.0.2.7,fd00::/8,").trusted_networks
    assert [str(network) for network in told] == ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]


@pytest.mark.parametrize("name", ["transaction_webhook_secret", "payment_webhook_secret"])
def test_a_webhook_secret_that_decodes_to_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="decodes to nothing"):
        Settings(**{name: "long-enough,whsec_"})  # pyright: ignore[reportArgumentType] - by name


@pytest.mark.parametrize(
    "text",
    [
        "*", "https://*", "https://*.shop.example", "shop.example", "https://shop.example/",
        "https://shop.example/path", "https://SHOP.example", "https://user@shop.example", "null",
        "ftp://shop.example", "https://shop.example https://other.example", "https://shop.example?",
    ],
)  # fmt: skip
def test_an_origin_is_exact(text: str) -> None:
    with pytest.raises(ValidationError, match="CORS_ORIGINS"):
        Settings(cors_origins=text)


def test_origins_are_a_list_with_commas() -> None:
    told = Settings(cors_origins="https://shop.example, http://[::1]:3000,")
    assert told.allowed_origins == ("https://shop.example", "http://[::1]:3000")
    assert Settings().allowed_origins == ()
