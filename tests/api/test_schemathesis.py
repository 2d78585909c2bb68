"""Whatever is sent to a real server, it answers only what the OpenAPI document says.

Schemathesis runs as a program: as a plugin of pytest it gives all its tests one node id, under
which pytest-xdist runs but one of them.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx2
import pytest
from tests.api.steps import a_user, charge
from tests.api.test_openapi import SNAPSHOT, operations
from tests.processes import ADMIN_SECRET, API_KEY, Server

# Drawn anew every day, while what is at the edges of each field is tried in full by a phase of its
# own: many draws at once are for the night.
EXAMPLES_MAX: Final = (8, pytest.param(40, marks=pytest.mark.nightly))
SECONDS_MAX: Final = 120
CHECKS: Final = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance"
)
PHASES: Final = "examples,coverage,fuzzing"


@pytest.fixture
async def peopled(server: Server) -> Server:
    """The server, with the users and charges that the document's examples speak of."""
    headers = {"X-API-Key": API_KEY}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        await a_user(client, 1, "1000000")
        for _ in range(3):
            await charge(client, 1)
    return server


def impatient(folder: Path) -> Path:
    """The document, without the one field that asks the server to be slow."""
    document = json.loads(SNAPSHOT.read_text())
    body = document["paths"]["/_fake_payments"]["post"]["requestBody"]["content"]
    del body["application/json"]["schema"]["properties"]["silence_seconds"]
    path = folder / "openapi.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.xdist_group("server")
@pytest.mark.parametrize("examples_max", EXAMPLES_MAX)
def test_the_server_answers_only_what_the_document_says(
    peopled: Server, tmp_path: Path, examples_max: int
) -> None:
    """No 5xx; no status, content type, header or shape that is not documented."""
    document = impatient(tmp_path)
    run = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "schemathesis.cli",
                "--no-color",
                "run",
                str(document),
            ),
            *("--url", peopled.url, "--header", f"X-API-Key:{API_KEY}", "--phases", PHASES),
            *("--header", f"X-Admin-Secret:{ADMIN_SECRET}"),
            *("--checks", CHECKS, "--max-examples", str(examples_max), "--warnings", "off"),
            *("--continue-on-failure", "--generation-database", "none"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    tested = re.search(r"Tested: (\d+)", run.stdout)
    assert tested, run.stdout
    assert int(tested[1]) == len(list(operations())), run.stdout
