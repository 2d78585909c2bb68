"""`picopay openapi`."""

from picopay.app import create_app
from picopay.cli.context import show_json
from picopay.infra.settings import Settings


def openapi() -> None:
    """Print the OpenAPI document.

    Example: `picopay openapi > openapi.json`
    """
    show_json(create_app(Settings()).openapi())
