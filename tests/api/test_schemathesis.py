"""Whatever is sent to a real server, it answers only what the OpenAPI document says."""

# schemathesis names half of its own types only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUntypedFunctionDecorator=false

from typing import Any, Final

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.api.steps import a_user, charge
from tests.api.test_openapi import SNAPSHOT
from tests.processes import API_KEY, Server

EXAMPLES_MAX: Final = 40
CHECKS: Final[list[Any]] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SLOW: Final = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@pytest.fixture(scope="module")
def document() -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_path(SNAPSHOT)


# A subtest for each operation. As tests of their own they would share one name, under which
# pytest-xdist runs only one of them.
DOCUMENT: Final = schemathesis.pytest.from_fixture("document")


@pytest.fixture(scope="module")
async def peopled(server: Server) -> Server:
    """The server, with the users and charges that the document's examples speak of."""
    headers = {"X-API-Key": API_KEY}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        await a_user(client, 1, "1000000")
        for _ in range(3):
            await charge(client, 1)
    return server


@pytest.mark.xdist_group("server")
@DOCUMENT.parametrize()
@settings(max_examples=EXAMPLES_MAX, deadline=None, suppress_health_check=SLOW)
def test_the_server_answers_only_what_the_document_says(
    case: schemathesis.Case[Any], peopled: Server
) -> None:
    """No 5xx; no status, content type, header or shape that is not documented."""
    case.call_and_validate(
        base_url=peopled.url, headers={"X-API-Key": API_KEY}, checks=CHECKS, timeout=30
    )
