"""How refusals are shown: RFC 9457 problem documents, one status for each code."""

from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response

from picopay.infra.json import dump
from picopay.infra.logs import request_id_var
from picopay.kernel.errors import Refused

# code → (HTTP status, title). The title never changes for a code; `detail` tells the occurrence.
PROBLEMS: Final[dict[str, tuple[int, str]]] = {
    "account-limit": (422, "The account cannot hold that much"),
    "account-not-found": (404, "No such account"),
    "api-key-invalid": (401, "The API key is missing or not valid"),
    "body-too-large": (413, "The body is too large"),
    "charge-not-found": (404, "No such charge"),
    "cursor-invalid": (422, "The cursor is not one of ours"),
    "database-unavailable": (503, "The database cannot be reached"),
    "idempotency-key-invalid": (400, "The Idempotency-Key header is not valid"),
    "idempotency-key-reused": (422, "The idempotency key belongs to another request"),
    "insufficient-balance": (400, "The balance does not cover the amount"),
    "internal-error": (500, "Something went wrong on our side"),
    "method-not-allowed": (405, "That method is not allowed here"),
    "not-found": (404, "Nothing is here"),
    "outcome-unknown": (503, "The outcome could not be confirmed"),
    "overloaded": (503, "Too much is waiting already"),
    "scope-missing": (403, "The API key lacks a scope"),
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


def document(refused: Refused, request_id: str | None = None) -> dict[str, object]:
    status, title = PROBLEMS[refused.code]
    return {
        "type": f"/problems/{refused.code}",
        "title": title,
        "status": status,
        "detail": refused.detail,
        "code": refused.code,
        "request_id": request_id or request_id_var.get(),
        **refused.fields,
    }


def response(refused: Refused) -> Response:
    headers: dict[str, str] = {}
    if refused.code in _RETRY_AFTER_SECONDS:
        headers["Retry-After"] = _RETRY_AFTER_SECONDS[refused.code]
    if refused.code == "api-key-invalid":
        headers["WWW-Authenticate"] = "ApiKey"
    content = dump(document(refused))
    status = PROBLEMS[refused.code][0]
    return Response(content, status, headers=headers, media_type=MEDIA_TYPE)


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of a route that may answer with these problems."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = PROBLEMS[code]
        entry = by_status.setdefault(
            status,
            {
                "description": HTTPStatus(status).phrase,
                "content": {
                    MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
                },
            },
        )
        if code in _RETRY_AFTER_SECONDS:
            entry["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
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
