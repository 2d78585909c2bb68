"""Why a caller is turned away."""

from typing import Final

from picopay.kernel.errors import Refused


class ApiKeyInvalid(Refused):
    code = "api-key-invalid"


class AdminSecretInvalid(Refused):
    code = "admin-secret-invalid"

    def __init__(self) -> None:
        super().__init__("send the server's ADMIN_SECRET, once, in the X-Admin-Secret header")


class ScopeMissing(Refused):
    code = "scope-missing"

    def __init__(self, scope: str) -> None:
        super().__init__(f"this API key lacks the scope {str(scope)!r}", required_scope=scope)


class RateLimited(Refused):
    """Too many requests: `retry_after_seconds` from now one more is allowed, and not sooner.

    The headers are those of the IETF's draft since its version 08, `RateLimit` and
    `RateLimit-Policy`: they name the rule and its window. The three of older versions
    (`RateLimit-Limit`, `-Remaining`, `-Reset`) tell neither, and the draft has given them up.
    What every client understands is `Retry-After` (RFC 9110).
    """

    code = "rate-limited"
    remaining: Final = 0

    def __init__(
        self, rule: str, *, limit: int, window_seconds: int, retry_after_seconds: int
    ) -> None:
        super().__init__(
            f"{limit} in {window_seconds} s are allowed; try again in {retry_after_seconds} s",
            rule=rule,
            limit=limit,
            window_seconds=window_seconds,
            remaining=self.remaining,
            retry_after_seconds=retry_after_seconds,
        )
        self.rule = rule
        self.limit = limit
        self.reset_seconds = self.retry_after_seconds = retry_after_seconds
        self.headers = {
            "Retry-After": str(retry_after_seconds),
            "RateLimit": f'"{rule}";r={self.remaining};t={self.reset_seconds}',
            "RateLimit-Policy": f'"{rule}";q={limit};w={window_seconds}',
        }


class ApiKeyNotFound(Refused):
    code = "not-found"


class SignatureInvalid(Refused):
    """Deliberately vague: what exactly was wrong is for our logs."""

    code = "signature-invalid"

    def __init__(self) -> None:
        super().__init__("the signature is missing or does not match the body")
