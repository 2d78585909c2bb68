"""Why a caller is turned away."""

from picopay.kernel.errors import Refused


class ApiKeyInvalid(Refused):
    code = "api-key-invalid"


class ScopeMissing(Refused):
    code = "scope-missing"

    def __init__(self, scope: str) -> None:
        super().__init__(f"this API key lacks the scope {str(scope)!r}", required_scope=scope)


class ApiKeyNotFound(Refused):
    code = "not-found"
