"""How refusals are shown: RFC 9457 problem documents, one status for each code."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from starlette.responses import Response

from picopay.infra.json import dump
from picopay.infra.logs import request_id_var
from picopay.kernel.errors import Refused

# code → (HTTP status, title). The title never changes for a code; `detail` tells the occurrence.
PROBLEMS: Final[dict[str, tuple[int, str]]] = {
    "account-limit": (422, "The account cannot hold that much"),
    "account-not-found": (404, "No such account"),
    "admin-secret-invalid": (401, "The admin secret is missing or not valid"),
    "api-key-invalid": (401, "The API key is missing or not valid"),
    "body-too-large": (413, "The body is too large"),
    "charge-not-found": (404, "No such charge"),
    "cursor-invalid": (422, "The cursor is not one of ours"),
    "database-unavailable": (503, "The database cannot be reached"),
    "dead-letter-not-found": (404, "No such dead letter"),
    "fake-payment-not-found": (404, "No such fake payment"),
    "fake-payment-not-refundable": (409, "The fake payment cannot be refunded"),
    "idempotency-key-invalid": (400, "The Idempotency-Key header is not valid"),
    "idempotency-key-reused": (422, "The idempotency key belongs to another request"),
    "insufficient-balance": (400, "The balance does not cover the amount"),
    "internal-error": (500, "Something went wrong on our side"),
    "merchant-balance-insufficient": (409, "The merchant's balance does not cover the refund"),
    "metrics-token-invalid": (401, "The metrics token is missing or not valid"),
    "method-not-allowed": (405, "That method is not allowed here"),
    "not-found": (404, "Nothing is here"),
    "insufficient-stock": (409, "Not enough is in stock"),
    "order-not-cancelable": (409, "The order is closed already"),
    "order-not-found": (404, "No such order"),
    "order-too-large": (422, "The order comes to more than can be paid at once"),
    "outcome-unknown": (503, "The outcome could not be confirmed"),
    "overloaded": (503, "Too much is waiting already"),
    "product-unavailable": (400, "A product is not for sale"),
    "rate-limited": (429, "Too many requests: wait a moment"),
    "payment-of-another-order": (409, "The payment is another order's"),
    "refund-exceeds-charge": (409, "More than is left of the charge"),
    "refund-in-progress": (409, "The provider is still being asked for the refund"),
    "refund-not-found": (404, "No such refund"),
    "product-archived": (409, "The product is archived"),
    "product-not-found": (404, "No such product"),
    "scope-missing": (403, "The API key lacks a scope"),
    "signature-invalid": (401, "The signature is missing or not valid"),
    "transaction-not-found": (404, "No such transaction"),
    "user-not-found": (404, "No such user"),
    "validation": (422, "The request is not valid"),
}

MEDIA_TYPE: Final = "application/problem+json"

# Worth trying again soon: what is wrong passes by itself.
_RETRY_AFTER_SECONDS: Final = {
    "overloaded": "1",
    "outcome-unknown": "1",
    "database-unavailable": "2",
}

# What the answer says in headers, by name in `HEADERS` below.
_HEADERS_OF: Final = {
    **dict.fromkeys(_RETRY_AFTER_SECONDS, ("Retry-After",)),
    "rate-limited": ("Retry-After", "RateLimit", "RateLimit-Policy"),
}
# What a 401 asks for (RFC 9110, section 11.6.1).
_CHALLENGES: Final = {
    "admin-secret-invalid": "AdminSecret",
    "api-key-invalid": "ApiKey",
    "metrics-token-invalid": "Bearer",
}


def document(refused: Refused, request_id: str | None = None) -> dict[str, object]:
    status, title = _status(refused), PROBLEMS[refused.code][1]
    return {
        "type": f"/problems/{refused.code}",
        "title": title,
        "status": status,
        "detail": refused.detail,
        "code": refused.code,
        "request_id": request_id or request_id_var.get(),
        **refused.fields,
    }


def _status(refused: Refused) -> int:
    return refused.status or PROBLEMS[refused.code][0]


def response(refused: Refused) -> Response:
    headers = dict(refused.headers)
    if refused.code in _RETRY_AFTER_SECONDS:
        headers["Retry-After"] = _RETRY_AFTER_SECONDS[refused.code]
    if refused.code in _CHALLENGES:
        headers["WWW-Authenticate"] = _CHALLENGES[refused.code]
    content = dump(document(refused))
    return Response(content, _status(refused), headers=headers, media_type=MEDIA_TYPE)


def documented(
    *codes: str, own_statuses: Mapping[str, int] = MappingProxyType({})
) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of a route that may answer with these problems.

    `own_statuses` are those that the route gives to codes which have another elsewhere.
    """
    by_status: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        usual, title = PROBLEMS[code]
        status = own_statuses.get(code, usual)
        entry = by_status.setdefault(
            status,
            {
                "description": HTTPStatus(status).phrase,
                "content": {
                    MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
                },
            },
        )
        if code in _HEADERS_OF:
            entry["headers"] = {
                name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS_OF[code]
            }
        example = {"type": f"/problems/{code}", "title": title, "status": status, "code": code}
        entry["content"][MEDIA_TYPE]["examples"][code] = {
            "value": {**example, "detail": title, "request_id": "0198c6a2-…"}
        }
    return by_status


class NotFound(Refused):
    code = "not-found"


class MethodNotAllowed(Refused):
    code = "method-not-allowed"


class BodyTooLarge(Refused):
    code = "body-too-large"


class InternalError(Refused):
    code = "internal-error"


HEADERS: Final[dict[str, Any]] = {
    "Retry-After": {
        "schema": {"type": "integer"},
        "description": "Seconds after which to try again.",
    },
    "RateLimit": {
        "schema": {"type": "string", "examples": ['"orders-per-email";r=0;t=12']},
        "description": "The limit that was reached: how many requests remain (`r`), and in how "
        "many seconds one more is allowed (`t`).",
    },
    "RateLimit-Policy": {
        "schema": {"type": "string", "examples": ['"orders-per-email";q=5;w=60']},
        "description": "That limit: `q` requests in any `w` seconds.",
    },
    "X-Request-ID": {
        "schema": {"type": "string"},
        "description": "The request's own, or one made for it; in every log line of the request.",
    },
}

SCHEMA: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "RFC 9457. Branch on `code`; `detail` is for people.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "examples": ["/problems/insufficient-balance"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(PROBLEMS)},
        "request_id": {"type": ["string", "null"]},
        "errors": {
            "type": "array",
            "description": "With `validation`: every place that is wrong, and why.",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
