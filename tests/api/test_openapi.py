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

SNAPSHOT: Final = Path(__file__).with_name("openapi.json")
METHODS: Final = {"get", "post", "put", "patch", "delete"}
OPEN: Final = {"/", "/health", "/healthz", "/livez", "/readyz", "/metrics", "/problems/{code}"}


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
        *("GET /v1/charges/{charge_id}", "POST /v1/users", "GET /v1/users/{user_id}"),
        *("POST /v1/users/{user_id}/deposits", "GET /v1/users/{user_id}/entries"),
        *("GET /v1/accounts/{owner}", "GET /v1/accounts/{owner}/entries", "GET /", "GET /health"),
        *("GET /healthz", "GET /livez", "GET /readyz", "GET /metrics", "GET /problems/{code}"),
    }


def test_the_document_names_product_licence_and_how_to_authenticate() -> None:
    shown = document()
    assert shown["openapi"].startswith("3.1")
    assert shown["info"]["license"]["identifier"] == "Apache-2.0"
    assert shown["components"]["securitySchemes"] == {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    }


def test_every_route_but_the_operators_asks_for_a_key() -> None:
    for name, operation in operations():
        guarded = name.partition(" ")[2] not in OPEN
        assert operation.get("security") == ([{"ApiKey": []}] if guarded else None), name
        assert guarded == ({"401", "403"} <= set(operation["responses"])), name


def test_every_route_documents_its_problems_with_an_example_each() -> None:
    for name, operation in operations():
        assert operation["summary"], name
        assert len(operation["tags"]) == 1, name
        for status, response in operation["responses"].items():
            if int(status) < 400 or PROBLEM not in response["content"]:
                assert set(response["content"]) <= {"application/json", "text/plain"}, name
                continue
            content = response["content"][PROBLEM]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, name
            assert content["examples"], name
            for code, example in content["examples"].items():
                assert PROBLEMS[code] == (int(status), example["value"]["title"]), name


def test_every_body_and_parameter_is_described() -> None:
    for name, operation in operations():
        assert ("requestBody" in operation) == name.startswith("POST"), name
        given = [parameter["name"] for parameter in operation.get("parameters", ())]
        assert set(re.findall(r"{(\w+)}", name)) <= set(given), name
        assert len(given) == len(set(given)), name
    shown = dict(operations())
    for name in ("POST /charge", "POST /v1/users/{user_id}/deposits"):
        headers = [p["name"] for p in shown[name]["parameters"] if p["in"] == "header"]
        assert headers == ["Idempotency-Key"]


def test_answers_are_described_with_their_headers() -> None:
    for name, operation in operations():
        for status, response in operation["responses"].items():
            shown = set(response["headers"])
            replayable = (name, status) in {
                ("POST /charge", "200"),
                ("POST /v1/users/{user_id}/deposits", "201"),
            }
            retry = status == "503" and PROBLEM in response["content"]
            assert shown == {
                "X-Request-ID",
                *(["Idempotent-Replayed"] if replayable else []),
                *(["Retry-After"] if retry else []),
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
