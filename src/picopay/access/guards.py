"""What a route asks of its caller."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request

from picopay.access import addresses
from picopay.access.errors import AdminSecretInvalid, ApiKeyInvalid, ScopeMissing
from picopay.access.keyring import Keyring
from picopay.access.model import Caller, Scope
from picopay.infra import metrics
from picopay.infra.logs import log
from picopay.infra.settings import Settings

# For OpenAPI: every guarded route names this scheme, and may answer these problems.
SECURITY: Final[dict[str, Any]] = {"security": [{"ApiKey": []}]}
OPTIONAL: Final[dict[str, Any]] = {"security": [{}, {"ApiKey": []}]}  # where a setting decides
PROBLEMS: Final = ("api-key-invalid", "scope-missing")
ADMIN_SECURITY: Final[dict[str, Any]] = {"security": [{"AdminSecret": []}]}
ADMIN_PROBLEMS: Final = ("admin-secret-invalid",)
SECURITY_SCHEMES: Final = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "AdminSecret": {"type": "apiKey", "in": "header", "name": "X-Admin-Secret"},
}


async def require(request: Request, scope: Scope) -> Caller:
    """The caller of a request with that scope. Raises `ApiKeyInvalid` or `ScopeMissing`."""
    texts = [value for name, value in request.scope["headers"] if name == b"x-api-key"]
    if len(texts) != 1 or not texts[0]:
        raise ApiKeyInvalid("send your API key, once, in the X-API-Key header")
    keyring: Keyring = request.app.state.keyring
    caller = await keyring.caller(texts[0].decode("latin-1"))
    if scope not in caller.scopes:
        raise ScopeMissing(scope)
    return caller


def client_address(request: Request) -> str:
    """Where the request came from, as a subject of limits; see `addresses.client_address`."""
    peer = request.scope.get("client")
    trusted = request.app.state.trusted
    return addresses.client_address(peer and peer[0], request.scope["headers"], trusted)


def guard(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """`require` as a FastAPI dependency."""

    async def guarded(request: Request) -> Caller:
        return await require(request, scope)

    return guarded


async def require_admin(request: Request) -> None:
    """Raises `AdminSecretInvalid`, for everybody while no ADMIN_SECRET is set."""
    settings: Settings = request.app.state.settings
    secret = (settings.admin_secret or "").encode()
    texts = [value for name, value in request.scope["headers"] if name == b"x-admin-secret"]
    # Compared in any case, and in constant time: how long it takes tells nothing.
    same = hmac.compare_digest(texts[0] if texts else b"", secret)
    if not (same and secret and len(texts) == 1):
        metrics.admin_secrets_rejected.inc()
        log.warning("admin_secret.rejected", path=request.scope["path"])
        raise AdminSecretInvalid
