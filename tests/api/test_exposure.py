"""What is open to browsers, scrapers and readers of the documents, and what a setting closes."""

import httpx2
import pytest
from tests.api.steps import a_user, charge, problem
from tests.conftest import serving

from picopay.infra.settings import Settings

SHOP = "https://shop.example"
PREFLIGHT = {"Origin": SHOP, "Access-Control-Request-Method": "POST"}


async def preflight(client: httpx2.AsyncClient, **changed: str) -> httpx2.Response:
    names = {name.replace("_", "-"): value for name, value in changed.items()}
    return await client.options("/charge", headers=PREFLIGHT | names)


def allowed(answer: httpx2.Response) -> dict[str, str]:
    return {
        name: value
        for name, value in answer.headers.items()
        if name.startswith("access-control-allow-")
    }


async def test_no_page_of_another_origin_may_call_unless_told(client: httpx2.AsyncClient) -> None:
    asked = await preflight(client)
    problem(asked, 405, "method-not-allowed")
    answered = await client.get("/products", headers={"Origin": SHOP})
    assert allowed(asked) == allowed(answered) == {}
    assert answered.headers["cross-origin-resource-policy"] == "same-origin"


async def test_the_origins_that_are_named_may_call_without_credentials(
    settings: Settings, clean: object
) -> None:
    async with serving(settings, cors_origins=f"{SHOP}, http://localhost:3000") as client:
        for origin in (SHOP, "http://localhost:3000"):
            asked = await preflight(client, Origin=origin)
            assert asked.status_code == 200
            assert allowed(asked)["access-control-allow-origin"] == origin
            assert "access-control-allow-credentials" not in asked.headers
        await a_user(client)
        answers = [
            await charge(client, headers={"Origin": SHOP}),
            await charge(client, -1, headers={"Origin": SHOP}),
            await client.get("/nothing", headers={"Origin": SHOP}),
        ]
        assert [answer.status_code for answer in answers] == [200, 422, 404]
        for answer in answers:  # a refusal is to be read too
            assert answer.headers["access-control-allow-origin"] == SHOP
            assert "Idempotent-Replayed" in answer.headers["access-control-expose-headers"]
            assert "Origin" in answer.headers["vary"]
            assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "https://shop.example.evil.example", "http://shop.example",
        "https://shop.example:8443", "https://SHOP.example", "null", "*", "",
    ],
)  # fmt: skip
async def test_no_other_origin_is_let_in(settings: Settings, origin: str) -> None:
    async with serving(settings, cors_origins=SHOP) as client:
        for answer in (
            await preflight(client, Origin=origin),
            await client.get("/products", headers={"Origin": origin}),
        ):
            assert "access-control-allow-origin" not in answer.headers


async def test_no_page_of_another_origin_is_for_administrators(settings: Settings) -> None:
    async with serving(settings, cors_origins=SHOP) as client:
        wanted = {"Access_Control_Request_Headers": "x-admin-secret"}
        assert (await preflight(client, **wanted)).status_code == 400
        for method in ("DELETE", "PATCH"):
            wanted = {"Access_Control_Request_Method": method}
            assert (await preflight(client, **wanted)).status_code == 400


async def test_metrics_ask_for_a_token_if_there_is_one(settings: Settings) -> None:
    async with serving(settings, metrics_token="t0k3n") as client:
        for told in ([], ["Bearer x"], ["t0k3n"], ["bearer t0k3n"], ["Bearer t0k3n"] * 2):
            headers = httpx2.Headers([("Authorization", value) for value in told])
            answer = await client.get("/metrics", headers=headers)
            problem(answer, 401, "metrics-token-invalid")
            assert answer.headers["www-authenticate"] == "Bearer"
        right = await client.get("/metrics", headers={"Authorization": "Bearer t0k3n"})
        assert "http_requests_total" in right.text


async def test_the_api_can_be_served_without_its_documents(settings: Settings) -> None:
    async with serving(settings, api_docs=False) as client:
        for path in ("/docs", "/redoc", "/openapi.json", "/docs/assets/docs.js", "/docs/vendor/x"):
            problem(await client.get(path), 404, "not-found")
        assert (await client.get("/health")).status_code == 200
