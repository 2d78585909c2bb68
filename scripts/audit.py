"""Known vulnerabilities, secrets in files, and a bill of materials.

`make audit` and `make sbom` run this. A vulnerability that is known, and anything that looks like a
secret, fails. That no service could be asked is said, and fails only with AUDIT_STRICT=1: a network
that is down is no reason to stop other work, and none to believe that all is well.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import default_settings

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "locks" / "run.txt"
SBOM: Final = ROOT / "dist" / "sbom.cdx.json"
BIN: Final = Path(sys.executable).parent
SERVICES: Final = ("pypi", "osv")
AUDIT_SECONDS_MAX: Final = 240

_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", re.MULTILINE)

# Tests and benchmarks make up secrets all the time: what only looks like an assignment of one, or a
# URL with a password, is not asked about there. Keys of known shapes, and noise, are.
MADE_UP: Final = ("tests/", "benchmarks/")
NOT_THERE: Final = ("Secret Keyword", "Basic Auth Credentials")
# Would try out a find where it may belong: a secret is nobody else's business.
ASKS_ELSEWHERE: Final = "detect_secrets.filters.common.is_ignored_due_to_verification_policies"
SKIPPED: Final = ("locks/",)  # digests of packages, line after line

_EXAMPLE: Final = "an example URL, whose password is the word"
_GRANT: Final = "names of tables and what may be done to them"
_NAME: Final = "the name of a secret, not the secret"
_PUBLIC: Final = "a password that everybody knows, of databases on the developer's own machine"
_VECTOR: Final = "a key or a test vector that stands in a specification, or is of no server"
# (file, kind) → how many there are, and why each is none.
ALLOWED: Final = {
    ("DEPLOY.md", "Basic Auth Credentials"): (1, _EXAMPLE),
    ("docs/reference/settings.md", "Basic Auth Credentials"): (1, _EXAMPLE),
    ("src/picopay/infra/settings.py", "Basic Auth Credentials"): (1, _EXAMPLE),
    ("src/picopay/infra/urls.py", "Basic Auth Credentials"): (1, _EXAMPLE),
    ("src/picopay/migrations/versions/0001_ledger_users_charges.py", "Secret Keyword"): (2, _GRANT),
    ("src/picopay/migrations/versions/0008_readonly_role.py", "Secret Keyword"): (1, _GRANT),
    ("deploy/kubernetes/base/api.yaml", "Secret Keyword"): (1, _NAME),
    ("deploy/kubernetes/base/migrate.yaml", "Secret Keyword"): (1, _NAME),
    ("deploy/kubernetes/base/worker.yaml", "Secret Keyword"): (1, _NAME),
    ("deploy/kubernetes/overlays/production/ingress.yaml", "Secret Keyword"): (1, _NAME),
    ("docker-compose.yml", "Basic Auth Credentials"): (1, _PUBLIC),
    ("docker-compose.yml", "Secret Keyword"): (1, _PUBLIC),
    ("scripts/acceptance/story.py", "Secret Keyword"): (1, _NAME),
    ("scripts/drills.py", "Secret Keyword"): (1, _VECTOR),
    ("tests/client/conftest.py", "Hex High Entropy String"): (1, _VECTOR),
    ("tests/integration/test_tracing.py", "Hex High Entropy String"): (2, _VECTOR),
    ("tests/unit/client/test_webhooks.py", "Hex High Entropy String"): (1, _VECTOR),
    ("tests/api/test_wire.py", "Base64 High Entropy String"): (1, _VECTOR),
    ("tests/unit/kernel/test_signing.py", "Base64 High Entropy String"): (2, _VECTOR),
    ("tests/unit/kernel/test_signing.py", "Hex High Entropy String"): (1, _VECTOR),
}


class Found(NamedTuple):
    """Something that looks like a secret."""

    file: str
    kind: str
    line: int


class Audited(NamedTuple):
    """What a service knows: what is vulnerable, and what it could not tell about."""

    vulnerable: list[str]
    unknown: list[str]
    total: int


def vulnerabilities() -> bool:
    """Whether nothing is known against any version of the lock, or nobody could be asked."""
    pins = len(pinned(LOCK.read_text()))
    for service in SERVICES:
        audited = judged(_asked(service), pins)
        if audited.vulnerable:
            print(*audited.vulnerable, sep="\n")
            return False
        if not audited.unknown:
            print(f"vulnerabilities: none known for {audited.total} packages ({service})")
            return True
        unknown = len(audited.unknown)
        print(f"vulnerabilities: {service} tells nothing of {unknown} of {audited.total} packages")
    print("vulnerabilities: NOT AUDITED, because no service answered for all of them")
    return os.environ.get("AUDIT_STRICT") != "1"


def _asked(service: str) -> dict[str, Any] | None:
    """pip-audit's answer; None when it has none, as without a network."""
    command = [BIN / "pip-audit", "-r", LOCK, "--require-hashes", "--disable-pip", "-f", "json"]
    options = ["--vulnerability-service", service, "--progress-spinner", "off", "--timeout", "10"]
    try:
        ran = subprocess.run(  # noqa: S603 - our own arguments
            [*command, *options], capture_output=True, timeout=AUDIT_SECONDS_MAX, check=False
        )
        return json.loads(ran.stdout)
    except (ValueError, subprocess.TimeoutExpired):
        return None


def judged(answer: dict[str, Any] | None, pins: int) -> Audited:
    """What is skipped is not audited, whatever pip-audit's exit status says of it."""
    if answer is None:
        return Audited([], ["all"] * pins, pins)
    told = answer["dependencies"]
    vulnerable = [
        f"{one['name']} {one['version']}: {vulnerability['id']}, mended in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for one in told
        for vulnerability in one.get("vulns", ())
    ]
    skipped = [one["name"] for one in told if "skip_reason" in one]
    unseen = ["?"] * (pins - len(told))
    return Audited(vulnerable, skipped + unseen, pins)


def secrets() -> bool:
    """Whether no file that is kept holds what looks like a secret, but for those of the list."""
    files = subprocess.run(
        ["git", "ls-files"],  # noqa: S607 - whichever git
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    wrong = unexplained(scanned([name for name in files if not name.startswith(SKIPPED)]))
    print(*wrong, f"secrets: {len(files)} files, {len(wrong)} findings without a reason", sep="\n")
    return not wrong


def scanned(files: Iterable[str], root: Path = ROOT) -> list[Found]:
    """Everything in these files that looks like a secret."""
    collection = SecretsCollection(root=str(root))
    with default_settings() as settings:
        settings.disable_filters(ASKS_ELSEWHERE)
        for name in files:
            collection.scan_file(name)
    return [Found(name, secret.type, secret.line_number) for name, secret in collection]


def unexplained(findings: Sequence[Found]) -> list[str]:
    """Those that no reason covers; and reasons that cover nothing any more."""
    asked = [f for f in findings if not (f.file.startswith(MADE_UP) and f.kind in NOT_THERE)]
    counts = Counter((found.file, found.kind) for found in asked)
    wrong = [
        f"{found.file}:{found.line}: {found.kind}"
        for found in asked
        if counts[found.file, found.kind] > ALLOWED.get((found.file, found.kind), (0, ""))[0]
    ]
    stale = [
        f"{file}: {number} of {kind} are allowed, but there are {counts[file, kind]}"
        for (file, kind), (number, _) in ALLOWED.items()
        if counts[file, kind] < number
    ]
    return wrong + stale


def bill() -> bool:
    """Writes the bill of materials: CycloneDX, checked against its schema, the same every time."""
    SBOM.parent.mkdir(exist_ok=True)
    texts = [_written(), _written()]
    missing = differing(json.loads(texts[0]), LOCK.read_text())
    print(f"sbom: {SBOM.relative_to(ROOT)}, {len(pinned(LOCK.read_text()))} packages", *missing)
    return texts[0] == texts[1] and not missing


def _written() -> str:
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", LOCK]
    options = ["--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "--validate"]
    subprocess.run([*command, *options, "--of", "JSON", "-o", SBOM], check=True)  # noqa: S603
    return SBOM.read_text()


def differing(document: dict[str, Any], lock: str) -> set[tuple[str, str]]:
    """Packages with their versions that are only in the bill, or only in the lock."""
    listed = {(one["name"], one["version"]) for one in document["components"]}
    return listed ^ pinned(lock)


def pinned(lock: str) -> set[tuple[str, str]]:
    return set(_PIN.findall(lock))


PARTS: Final = {"vulnerabilities": vulnerabilities, "secrets": secrets, "sbom": bill}

if __name__ == "__main__":
    passed = [PARTS[name]() for name in sys.argv[1:]]
    sys.exit(not all(passed))
