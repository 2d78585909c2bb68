"""The audit can fail: a planted vulnerability, secret or package is found."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CLEAN: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
KNOWN: dict[str, Any] = {"id": "CVE-1", "fix_versions": ["2"]}
VULNERABLE: dict[str, Any] = {"name": "b", "version": "1", "vulns": [KNOWN]}
SKIPPED: dict[str, Any] = {"name": "b", "skip_reason": "not found"}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts/audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("told", "vulnerable", "unknown"),
    [
        ([CLEAN, VULNERABLE], 1, 0),
        ([CLEAN, SKIPPED], 0, 1),
        ([CLEAN], 0, 1),
        ([CLEAN, CLEAN], 0, 0),
        (None, 0, 2),
    ],
)
def test_what_was_not_audited_does_not_count_as_sound(
    audit: ModuleType, told: list[dict[str, Any]] | None, vulnerable: int, unknown: int
) -> None:
    audited = audit.judged(None if told is None else {"dependencies": told}, 2)
    assert (len(audited.vulnerable), len(audited.unknown)) == (vulnerable, unknown)


@pytest.fixture
def answers(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What each service answers: the last of the list."""
    told: list[object] = [None]

    def asked(_service: str) -> object:
        return told[-1]

    monkeypatch.setattr(audit, "_asked", asked)
    monkeypatch.delenv("AUDIT_STRICT", raising=False)
    return told


def test_a_known_vulnerability_fails(audit: ModuleType, answers: list[object]) -> None:
    answers.append({"dependencies": [VULNERABLE]})
    assert audit.vulnerabilities() is False


def test_that_nobody_could_be_asked_is_said_and_fails_if_that_is_wanted(
    audit: ModuleType,
    answers: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert audit.vulnerabilities() is True
    assert "NOT AUDITED" in capsys.readouterr().out
    monkeypatch.setenv("AUDIT_STRICT", "1")
    assert audit.vulnerabilities() is False


PLANTED = {
    "AWS Access Key": "key = AKIA" + "Q7" * 8,
    "Private Key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "GitHub Token": "token = ghp_" + "a1B" * 12,
    "Stripe Access Key": "stripe = sk_live_" + "a1B" * 8,
}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("folder", ["src", "tests"])
def test_a_planted_secret_is_found_wherever_it_is(
    audit: ModuleType, tmp_path: Path, kind: str, folder: str
) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "planted.py").write_text(f"# {PLANTED[kind]}\n")
    found = audit.scanned([f"{folder}/planted.py"], tmp_path)
    assert f"{folder}/planted.py:1: {kind}" in audit.unexplained(found)


def test_one_more_than_is_allowed_and_one_less_are_both_told(audit: ModuleType) -> None:
    (file, kind), (number, _) = next(iter(audit.ALLOWED.items()))
    one = audit.Found(file, kind, 1)
    more, less = audit.unexplained([one] * (number + 1)), audit.unexplained([])
    assert f"{file}:1: {kind}" in more
    assert any(line.startswith(f"{file}: {number} of {kind}") for line in less)


def test_a_package_that_the_bill_or_the_lock_lacks_is_told(audit: ModuleType) -> None:
    listed = {"components": [{"name": "a", "version": "1"}, {"name": "c", "version": "1"}]}
    assert audit.differing(listed, "a==1 \\\n    --hash=x\nb[x]==2 ; y\n") == {
        ("b", "2"),
        ("c", "1"),
    }
