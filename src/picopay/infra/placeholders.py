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


def weakness(secrets: Iterable[str]) -> str | None:
    """What production has against them, to be told after their setting's name."""
    told = tuple(secrets)
    if is_placeholder(told):
        return "is a well-known placeholder: choose one of your own"
    if any(len(secret) < SECRET_CHARACTERS_MIN for secret in told):
        return f"is shorter than {SECRET_CHARACTERS_MIN} characters: choose one that nobody guesses"
    return None
