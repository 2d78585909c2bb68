"""What a call may raise: facts in families, with the key that makes another try safe.

All of them survive pickling, so that a job queue can carry them from one process to another.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class PicoPayError(Exception):
    """Any of them.

    `idempotency_key` is the one that was sent: with it the same call may be made again, by this
    process or by the next, and does what it asks for only once.
    """

    def __init__(
        self, why: str, idempotency_key: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(why, idempotency_key, request_id)
        self.idempotency_key = idempotency_key
        self.request_id = request_id

    def __str__(self) -> str:
        return str(self.args[0])


class NotSent(PicoPayError):
    """Surely not received: no connection came about."""


class Unanswered(PicoPayError):
    """It may have been received: no answer came, or not in time."""


class AnswerUnreadable(PicoPayError):
    """Something answered, but not as PicoPay does; a write may have been done."""


class ProblemTold(NamedTuple):
    """A problem document (RFC 9457). `code` is None when it is not one of PicoPay's."""

    status: int
    code: str | None
    title: str
    detail: str
    request_id: str | None
    fields: Mapping[str, object]
    retry_after_seconds: float | None


class Problem(PicoPayError):
    """PicoPay, or what stands before it, has refused. Branch on the class, or on `code`.

    `fields` are the further members of the problem, numbers as `int` and `Decimal`.
    """

    def __init__(self, told: ProblemTold, idempotency_key: str | None = None) -> None:
        why = f"{told.code or told.status}: {told.detail or told.title}"
        super().__init__(why, idempotency_key, told.request_id)
        self.args = (told, idempotency_key)
        self.why = why
        self.told = told
        self.status = told.status
        self.code = told.code
        self.title = told.title
        self.detail = told.detail
        self.fields = told.fields
        self.retry_after_seconds = told.retry_after_seconds

    def __str__(self) -> str:
        return self.why


class Invalid(Problem):
    """The request is malformed; `fields["errors"]` names each place and why."""


class Unauthorized(Problem):
    """A credential or a signature is missing, or not valid."""


class Forbidden(Problem):
    """The API key lacks a scope."""


class NotFound(Problem):
    """There is none of that name."""


class Declined(Problem):
    """Understood, and refused as things stand: nothing was done, and the key stays free."""


class KeyReused(Problem):
    """The idempotency key has made something else; `fields["mismatched_fields"]` tells why."""


class RateLimited(Problem):
    """Too many requests; `retry_after_seconds` tells when there is room again."""


class Unavailable(Problem):
    """Not now: it was tried again in vain."""


class OutcomeUnknown(Unavailable):
    """It may have been done. The same call with the same key tells, and does it if it was not."""


class ServerFailed(Problem):
    """Something went wrong on the other side."""


# docs/reference/errors.md lists the same; a test compares the two.
FAMILIES: Final[Mapping[str, type[Problem]]] = {
    "account-limit": Declined,
    "account-not-found": NotFound,
    "admin-secret-invalid": Unauthorized,
    "api-key-invalid": Unauthorized,
    "body-too-large": Invalid,
    "charge-not-found": NotFound,
    "cursor-invalid": Invalid,
    "database-unavailable": Unavailable,
    "dead-letter-not-found": NotFound,
    "fake-payment-not-found": NotFound,
    "fake-payment-not-refundable": Declined,
    "idempotency-key-invalid": Invalid,
    "idempotency-key-reused": KeyReused,
    "insufficient-balance": Declined,
    "insufficient-stock": Declined,
    "internal-error": ServerFailed,
    "merchant-balance-insufficient": Declined,
    "method-not-allowed": Invalid,
    "metrics-token-invalid": Unauthorized,
    "not-found": NotFound,
    "order-not-cancelable": Declined,
    "order-not-found": NotFound,
    "order-too-large": Declined,
    "outcome-unknown": OutcomeUnknown,
    "overloaded": Unavailable,
    "payment-of-another-order": Declined,
    "product-archived": Declined,
    "product-not-found": NotFound,
    "product-unavailable": Declined,
    "rate-limited": RateLimited,
    "refund-exceeds-charge": Declined,
    "refund-in-progress": Declined,
    "refund-not-found": NotFound,
    "scope-missing": Forbidden,
    "signature-invalid": Unauthorized,
    "transaction-not-found": NotFound,
    "user-not-found": NotFound,
    "validation": Invalid,
}

# For codes of later versions, and for answers of something else, as of a proxy.
_BY_STATUS: Final[Mapping[int, type[Problem]]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Declined,
    413: Invalid,
    422: Invalid,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
_SERVER_FAILURES: Final = 500  # statuses from there on


def family(code: str | None, status: int) -> type[Problem]:
    """The class that a problem is raised as."""
    other = ServerFailed if status >= _SERVER_FAILURES else Problem
    return FAMILIES.get(code or "") or _BY_STATUS.get(status, other)
