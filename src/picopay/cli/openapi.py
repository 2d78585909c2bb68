"""`picopay openapi`."""

from picopay.app import create_app
from picopay.cli.context import load_settings, show_json


def openapi() -> None:
    """Print the OpenAPI document.

    Example: `picopay openapi > openapi.json`
    """
    show_json(create_app(load_settings()).openapi())
