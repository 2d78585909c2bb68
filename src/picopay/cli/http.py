"""What `demo` and `bench` share: a client of a running server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer

from picopay.cli.context import load_settings
from picopay.cli.errors import CommandFailed

Url = Annotated[str, typer.Option(help="The running server.")]
DEFAULT_URL = "http://127.0.0.1:8000"
Key = Annotated[
    str | None,
    typer.Option(help="API key.  [default: APP_API_KEY, or the data directory's]"),
]


def api_key(given: str | None, data_dir: Path | None) -> str:
    settings = load_settings()
    kept = (data_dir or settings.picopay_data_dir) / "api_key"
    key = given or settings.app_api_key or (kept.read_text().strip() if kept.exists() else None)
    if key is None:
        raise CommandFailed(
            "no API key: give --key, set APP_API_KEY, or give the server's --data-dir"
        )
    return key


def admin_secret(data_dir: Path | None) -> str | None:
    """The server's, if it can be known here."""
    settings = load_settings()
    kept = (data_dir or settings.picopay_data_dir) / "admin_secret"
    return settings.admin_secret or (kept.read_text().strip() if kept.exists() else None)


@asynccontextmanager
async def client(url: str, key: str, connections: int) -> AsyncGenerator[aiohttp.ClientSession]:
    """Raises `CommandFailed` when nobody answers at the URL."""
    if not url.startswith(("http://", "https://")):
        raise CommandFailed(f"{url!r} is not a URL: http://host:port")
    connector = aiohttp.TCPConnector(limit=connections)
    timeout = aiohttp.ClientTimeout(total=60)
    headers = {"X-API-Key": key}
    async with aiohttp.ClientSession(
        url, headers=headers, connector=connector, timeout=timeout
    ) as session:
        try:
            async with session.get("/health"):
                pass
            yield session
        except aiohttp.ClientConnectorError:
            raise CommandFailed(
                f"nobody answers at {url}: start `picopay serve`, or give --url"
            ) from None


async def call(
    session: aiohttp.ClientSession, path: str, body: object, key: str | None = None
) -> tuple[int, dict[str, Any], bool]:
    """(status, answer, whether it was a replay) of a POST."""
    headers = {"Idempotency-Key": key} if key else None
    async with session.post(path, json=body, headers=headers) as response:
        return response.status, await response.json(), "Idempotent-Replayed" in response.headers


async def funded(session: aiohttp.ClientSession, user_id: int, amount: int) -> None:
    """A user with at least that many dollars."""
    for path, body in (
        ("/v1/users", {"id": user_id}),
        (f"/v1/users/{user_id}/deposits", {"amount": amount, "currency": "USD"}),
    ):
        status, answer, _ = await call(session, path, body)
        if status == 401:
            raise CommandFailed(
                "the server does not know the API key: give --key, set APP_API_KEY, or give the "
                "server's --data-dir"
            )
        if status not in (200, 201):
            raise CommandFailed(f"{path} answered {status}: {answer.get('detail')}")
