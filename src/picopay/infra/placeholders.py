"""Secrets that everybody knows, or can guess."""

from collections.abc import Iterable
from typing import Final

SECRET_CHARACTERS_MIN: Final = 16

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


def is_placeholder(secrets: Iterable[str]) -> bool:
    """Whether any of them is one."""
    return not PLACEHOLDERS.isdisjoint(secrets)


def is_short(secrets: Iterable[str]) -> bool:
    """Whether any of them could be guessed."""
    return any(len(secret) < SECRET_CHARACTERS_MIN for secret in secrets)
