"""What a route asks of its caller."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request

from picopay.access.errors import ApiKeyInvalid, ScopeMissing
from picopay.access.keyring import Keyring
from picopay.access.model import Caller, Scope

# For OpenAPI: every guarded route names this scheme, and may answer these problems.
SECURITY: Final[dict[str, Any]] = {"security": [{"ApiKey": []}]}
PROBLEMS: Final = ("api-key-invalid", "scope-missing")
SECURITY_SCHEME: Final = {"ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}


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


def guard(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """`require` as a FastAPI dependency."""

    async def guarded(request: Request) -> Caller:
        return await require(request, scope)

    return guarded
