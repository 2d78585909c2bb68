"""What a process hands by its environment to those that it starts."""

import os
from pathlib import Path
from typing import Final

from picopay.infra.settings import Settings

_METRICS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"


def export(settings: Settings) -> None:
    """Hand the resolved settings to the processes that this one starts."""
    for name, value in settings.model_dump(mode="json", exclude_none=True).items():
        os.environ[name.upper()] = str(value)


def share_metrics(directory: Path) -> None:
    """Where prometheus-client's processes share their counters; it reads only the environment."""
    os.environ[_METRICS_DIR] = str(directory)


def metrics_folder() -> Path | None:
    """None when there is only one process."""
    return Path(os.environ[_METRICS_DIR]) if _METRICS_DIR in os.environ else None
