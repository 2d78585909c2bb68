"""The guide to fake payments, run word by word."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.documents.pages import ROOT, fenced
from tests.embedded.world import wait_until
from tests.processes import Server, Site, free_port, spawn

GUIDE = (ROOT / "docs/guides/fake-payments.md").read_text()


@pytest.fixture
def server(site: Site) -> Server:
    """As `make run` starts it, but that its payments succeed."""
    return site.serve(environment={"FAKE_PAYMENT_SUCCESS_RATE": "1"})


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def receiver(server: Server, site: Site, port: int, tmp_path: Path) -> Iterator[Path]:
    """The guide's receiver, started by the guide's command; its log."""
    (script,) = fenced("python", GUIDE)
    (tmp_path / "receiver.py").write_text(script.replace("9000", str(port)))
    (start,) = [block for block in fenced("bash", GUIDE) if "receiver.py" in block]
    start = start.replace(".picopay", str(site.data_dir)).replace(
        "python3", f"exec {sys.executable}"
    )
    log = tmp_path / "receiver.log"
    process = spawn(["/bin/bash", "-c", start], {}, log)
    yield log
    process.kill()
    process.wait()


def _run(commands: str, server: Server, port: int) -> str:
    commands = commands.replace("localhost:8000", f"127.0.0.1:{server.port}")
    commands = commands.replace("127.0.0.1:9000", f"127.0.0.1:{port}")
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return ran.stdout


@pytest.mark.kill
def test_the_guides_commands_do_what_it_says(server: Server, receiver: Path, port: int) -> None:
    create, show, misbehave, refund = [b for b in fenced("bash", GUIDE) if b.startswith("curl")]
    (shown,) = [json.loads(block) for block in fenced("json", GUIDE)]
    assert json.loads(_run(create, server, port)) == shown
    assert json.loads(_run(create, server, port)) == shown

    def status() -> str:
        return json.loads(_run(show, server, port))["status"]

    wait_until(lambda: status() == "success")
    assert json.loads(_run(refund, server, port))["status"] == "refunded"
    assert status() == "refunded"

    _run(misbehave, server, port)
    wait_until(lambda: receiver.read_text().count("genuine") == 4)
    said = receiver.read_text()
    assert said.count('"status":"success"') == said.count('"status":"failed"') == 2
    assert "forged" not in said


def test_the_guide_names_every_knob_and_its_setting() -> None:
    settings = (ROOT / "docs/reference/settings.md").read_text()
    named = set(re.findall(r"`(FAKE_PAYMENT_[A-Z_]+)`", settings))
    assert named - {"FAKE_PAYMENT_ENABLED"} == set(re.findall(r"`(FAKE_PAYMENT_[A-Z_]+)`", GUIDE))
