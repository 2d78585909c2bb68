"""The OpenAPI document: complete, and as committed.

`tests/api/openapi.json` is the document as it was last agreed on. After a change that is meant:
`python -m tests.api.test_openapi` writes it anew; review the difference as an API change.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
from tests.api.steps import PROBLEM

from picopay.app import create_app
from picopay.infra.problems import PROBLEMS
from picopay.infra.settings import Settings

# Where a code has another status than elsewhere: as its source answered.
OWN_STATUSES: Final = {("POST /orders", "idempotency-key-reused"): 409}
SNAPSHOT: Final = Path(__file__).with_name("openapi.json")
METHODS: Final = {"get", "post", "put", "patch", "delete"}
OPEN: Final = {
    *("/", "/health", "/healthz", "/livez", "/readyz", "/metrics", "/problems/{code}"),
    "/v1/webhooks/transactions",  # signed instead
    # Somebody else's service, as far as PicoPay is concerned.
    *("/_fake_payments", "/_fake_payments/{payment_id}", "/_fake_payments/{payment_id}/refunds"),
    *("/products", "/products/{product_id}", "/payments/callback"),
}
BODILESS: Final = {"POST /_fake_payments/{payment_id}/refunds", "POST /orders/{order_id}/cancel"}
OPTIONAL: Final = {
    *("GET /v1/transactions/{transaction_id}", "POST /orders", "GET /orders/{order_id}"),
    *("GET /orders/{order_id}/events", "POST /orders/{order_id}/cancel"),
}


def document() -> dict[str, Any]:
    somewhere = "postgresql://picopay@localhost/picopay"
    return create_app(Settings(database_url=somewhere)).openapi()


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation as ("POST /charge", what the document says of it)."""
    for path, item in document()["paths"].items():
        for method in METHODS & set(item):
            yield f"{method.upper()} {path}", item[method]


def rendered(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def test_the_document_is_the_one_committed() -> None:
    told = "the API has changed: run `python -m tests.api.test_openapi` and review the difference"
    assert json.loads(SNAPSHOT.read_text()) == document(), told


def test_the_routes_are_those_of_the_contract() -> None:
    assert {name for name, _ in operations()} == {
        *("POST /charge", "POST /v1/charges/batch", "GET /v1/charges"),
        *("GET /v1/charges/{charge_id}/refunds", "POST /v1/charges/{charge_id}/refunds"),
        *("GET /v1/charges/{charge_id}", "POST /v1/users", "GET /v1/users/{user_id}"),
        *("POST /v1/users/{user_id}/deposits", "GET /v1/users/{user_id}/entries"),
        *("GET /v1/accounts/{owner}", "GET /v1/accounts/{owner}/entries", "GET /", "GET /health"),
        *("POST /v1/webhooks/transactions", "GET /v1/transactions"),
        *("GET /v1/transactions/{transaction_id}", "GET /v1/admin/dead-letters"),
        *("GET /v1/admin/dead-letters/{letter_id}", "POST /v1/admin/dead-letters/replay"),
        "POST /v1/admin/dead-letters/discard",
        *("POST /_fake_payments", "GET /_fake_payments/{payment_id}"),
        "POST /_fake_payments/{payment_id}/refunds",
        *("POST /admin/products", "GET /admin/products/{product_id}"),
        *("PATCH /admin/products/{product_id}", "DELETE /admin/products/{product_id}"),
        *("GET /products", "GET /products/{product_id}"),
        *("GET /admin/refunds", "POST /admin/refunds"),
        *("POST /orders", "GET /orders", "GET /orders/{order_id}", "POST /payments/callback"),
        *("GET /orders/{order_id}/events", "POST /orders/{order_id}/cancel"),
        *("GET /healthz", "GET /livez", "GET /readyz", "GET /metrics", "GET /problems/{code}"),
    }


def test_the_document_names_product_licence_and_how_to_authenticate() -> None:
    shown = document()
    assert shown["openapi"].startswith("3.1")
    assert shown["info"]["license"]["identifier"] == "Apache-2.0"
    assert shown["components"]["securitySchemes"] == {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "AdminSecret": {"type": "apiKey", "in": "header", "name": "X-Admin-Secret"},
    }


def test_every_route_but_the_operators_and_senders_asks_for_a_key() -> None:
    for name, operation in operations():
        path = name.partition(" ")[2]
        if path.startswith("/admin/") or name == "GET /orders":
            assert operation["security"] == [{"AdminSecret": []}], name
            assert "401" in operation["responses"], name
            continue
        guarded = path not in OPEN
        key: dict[str, list[str]] = {"ApiKey": []}
        asked = [{}, key] if name in OPTIONAL else [key]
        assert operation.get("security") == (asked if guarded else None), name
        assert guarded == ({"401", "403"} <= set(operation["responses"])), name


def test_every_route_documents_its_problems_with_an_example_each() -> None:
    for name, operation in operations():
        assert operation["summary"], name
        assert len(operation["tags"]) == 1, name
        for status, response in operation["responses"].items():
            if status in {"204", "414"}:
                assert "content" not in response, name
                continue
            if int(status) < 400 or PROBLEM not in response["content"]:
                assert set(response["content"]) <= {"application/json", "text/plain"}, name
                continue
            content = response["content"][PROBLEM]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, name
            assert content["examples"], name
            for code, example in content["examples"].items():
                usual, title = PROBLEMS[code]
                own = OWN_STATUSES.get((name, code), usual)
                assert (own, title) == (int(status), example["value"]["title"]), name


def test_every_body_and_parameter_is_described() -> None:
    for name, operation in operations():
        takes_body = name.startswith(("POST", "PATCH")) and name not in BODILESS
        assert ("requestBody" in operation) == takes_body, name
        given = [parameter["name"] for parameter in operation.get("parameters", ())]
        assert set(re.findall(r"{(\w+)}", name)) <= set(given), name
        assert len(given) == len(set(given)), name
    shown = dict(operations())
    for name in (
        *("POST /charge", "POST /v1/users/{user_id}/deposits"),
        *("POST /v1/charges/{charge_id}/refunds", "POST /_fake_payments", "POST /orders"),
    ):
        headers = [p["name"] for p in shown[name]["parameters"] if p["in"] == "header"]
        assert headers == ["Idempotency-Key"]


def test_answers_are_described_with_their_headers() -> None:
    for name, operation in operations():
        for status, response in operation["responses"].items():
            if status == "414":  # told by the server, past all that makes answers
                assert "headers" not in response
                continue
            shown = set(response["headers"])
            replayable = (name, status) in {
                ("POST /charge", "200"),
                ("POST /v1/users/{user_id}/deposits", "201"),
                ("POST /v1/charges/{charge_id}/refunds", "201"),
                ("POST /_fake_payments", "200"),
                ("POST /orders", "201"),
            }
            retry = status in {"429", "503"} and PROBLEM in response["content"]
            limits = ["RateLimit", "RateLimit-Policy"] if status == "429" else []
            linked = (name, status) == ("GET /products", "200")
            assert shown == {
                "X-Request-ID",
                *(["Idempotent-Replayed"] if replayable else []),
                *(["Retry-After"] if retry else []),
                *limits,
                *(["Link"] if linked else []),
            }, (name, status)


def test_every_reference_leads_somewhere() -> None:
    shown = document()
    references = re.findall(r'"\$ref": "#/components/(\w+)/([^"]+)"', json.dumps(shown))
    assert {kind for kind, _ in references} == {"schemas", "headers"}
    for kind, name in references:
        assert name in shown["components"][kind]


async def test_the_server_hands_out_the_same_document(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/openapi.json")).json() == document()


if __name__ == "__main__":
    SNAPSHOT.write_text(rendered(document()))
