"""Settings that somebody meant, and wrote otherwise: nothing else would ever say so."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from picopay.infra.settings import Settings

_ALIKE: Final = 0.9
_OUR_OWN: Final = "PICOPAY_"
_KNOWN: Final = [name.upper() for name in Settings.model_fields]


def in_environment() -> dict[str, str]:
    """As `meant`, of the environment and of `.env`."""
    sources = EnvSettingsSource(Settings), DotEnvSettingsSource(Settings)
    return meant(name for source in sources for name in source.env_vars)


def meant(names: Iterable[str]) -> dict[str, str]:
    """For each name that is no setting, but nearly one: the setting."""
    strangers = sorted({name.upper() for name in names}.difference(_KNOWN))
    found = {name: _nearest(name) for name in strangers}
    return {name: setting for name, setting in found.items() if setting is not None}


def _nearest(name: str) -> str | None:
    if alike := get_close_matches(name, _KNOWN, 1, _ALIKE):
        return alike[0]
    # Of other prefixes an orchestrator makes names of its own: REDIS_PORT_6379_TCP.
    longer = [known for known in _KNOWN if name.startswith(known) and known.startswith(_OUR_OWN)]
    return longer[0] if longer else None
