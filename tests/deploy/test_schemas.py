"""What the schemas' checkers accept, and that each of them can refuse."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.deploy.files import BACKUP, DEV, KUBERNETES, PROD, ROOT
from tests.documents.pages import fenced

BIN = Path(sys.executable).parent
HADOLINT = [str(BIN / "hadolint")]
COMPOSE = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
WORKFLOW = [COMPOSE[0], "--builtin-schema", "vendor.github-workflows"]
STRICT = [str(BIN / "kubernetes-validate"), "--strict", "--quiet"]
MANIFESTS = sorted(
    file
    for file in KUBERNETES.rglob("*.yaml")
    if file.name != "kustomization.yaml" and file.parent.name != "patches"
)


def accepts(command: list[str], *files: Path) -> bool:
    ran = subprocess.run([*command, *files], capture_output=True, timeout=60, check=False)
    return ran.returncode == 0


def test_the_dockerfile_and_the_compose_files_are_accepted() -> None:
    assert accepts(HADOLINT, ROOT / "Dockerfile")
    assert accepts(COMPOSE, DEV, PROD, BACKUP)


def test_the_pipeline_of_the_deployment_guide_is_accepted_and_a_mistake_in_it_is_not(
    tmp_path: Path,
) -> None:
    (pipeline,) = fenced("yaml", (ROOT / "DEPLOY.md").read_text())
    (tmp_path / "right.yml").write_text(pipeline)
    (tmp_path / "wrong.yml").write_text(pipeline.replace("needs: check", "need: check"))
    assert accepts(WORKFLOW, tmp_path / "right.yml")
    assert not accepts(WORKFLOW, tmp_path / "wrong.yml")


def test_the_manifests_are_accepted() -> None:
    assert len(MANIFESTS) >= 8
    assert accepts(STRICT, *MANIFESTS)


@pytest.mark.parametrize(
    ("checker", "file", "right", "wrong"),
    [
        (HADOLINT, ROOT / "Dockerfile", "ENTRYPOINT [", "ENTRYPOINT picopay # ["),
        (HADOLINT, ROOT / "Dockerfile", "WORKDIR /build", "WORKDIR build"),
        (COMPOSE, DEV, "condition: service_healthy", "condition: healthy"),
        (COMPOSE, PROD, "limits: { cpus", "limit: { cpus"),
        (STRICT, KUBERNETES / "base/api.yaml", "periodSeconds", "period"),
        (STRICT, KUBERNETES / "base/worker.yaml", "replicas: 2", "replicas: two"),
    ],
)
def test_a_mistake_is_refused(
    tmp_path: Path, checker: list[str], file: Path, right: str, wrong: str
) -> None:
    text = file.read_text()
    assert right in text
    planted = tmp_path / file.name
    planted.write_text(text.replace(right, wrong, 1))
    assert not accepts(checker, planted)
