"""Names that are nearly a setting are told, and nobody else's."""

import pytest

from picopay.cli.misspelt import meant


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("DATABASE_URLL", "DATABASE_URL"),
        ("APP_API_KEYS", "APP_API_KEY"),
        ("database-url", "DATABASE_URL"),
        ("FAKE_PAYMENT_SUCESS_RATE", "FAKE_PAYMENT_SUCCESS_RATE"),
        ("PICOPAY_ENVIRONMENT", "PICOPAY_ENV"),
    ],
)
def test_a_name_that_is_nearly_a_setting_is_told(name: str, setting: str) -> None:
    assert meant(["PATH", name]) == {name.upper(): setting}


@pytest.mark.parametrize(
    "name",
    [
        "database_url", "PICOPAY_ENV", "PATH", "REDIS_PORT_6379_TCP", "PICOPAY_SERVICE_HOST",
        "PICOPAY_PORT", "PICOPAY_API_KEY", "PICOPAY_WORKER", "POSTGRES_PASSWORD",
        "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ],
)  # fmt: skip
def test_settings_and_what_is_of_others_are_not(name: str) -> None:
    assert meant([name]) == {}
