"""Secrets that everybody knows."""

from typing import Final

# Values that stand in examples, compose files and tutorials, ours and other people's.
PLACEHOLDERS: Final = frozenset(
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
