"""The page of HTTP operations names the scope that each of them asks for."""

import re
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx2
import pytest
from fastapi import FastAPI
from tests.api.steps import a_key, problem
from tests.conftest import client_of
from tests.documents.pages import ROOT

from picopay.infra.db import Db

PAGE = (ROOT / "docs/reference/http.md").read_text()
ASKING = re.findall(r"^\| `([A-Z]+) (\S+)` \| .* \| API key, scope `(\w+)` \|", PAGE, re.MULTILINE)


@pytest.fixture
async def scopeless(app: FastAPI, db: Db) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app) as client:
        client.headers.update(await a_key(db, scopes=()))
        yield client


async def test_without_its_scope_an_operation_is_refused_by_name(
    scopeless: httpx2.AsyncClient,
) -> None:
    assert len(ASKING) > 15
    for method, path, scope in ASKING:
        asked = path.replace("{owner}", "world").replace("{user_id}", "1")
        asked = re.sub(r"\{\w+\}", str(uuid4()), asked)
        answer = await scopeless.request(method, asked, json={} if method == "POST" else None)
        assert scope in problem(answer, 403, "scope-missing")["detail"], f"{method} {path}"
