"""What the schemas' checkers accept, and that each of them can refuse."""

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner
from kubernetes_validate import utils as kubernetes_validate
from tests.deploy.files import BACKUP, DEV, KUBERNETES, PROD, ROOT
from tests.documents.pages import fenced

BIN = Path(sys.executable).parent
MANIFESTS = sorted(
    file
    for file in KUBERNETES.rglob("*.yaml")
    if file.name != "kustomization.yaml" and file.parent.name != "patches"
)

# `make check-deploy` runs the programs. Here they are imported once: that takes seconds each time.
Checker = Callable[..., bool]


def hadolint(*files: Path) -> bool:
    ran = subprocess.run([BIN / "hadolint", *files], capture_output=True, timeout=60, check=False)
    return ran.returncode == 0


def compose(*files: Path) -> bool:
    return _holds("vendor.compose-spec", files)


def workflow(*files: Path) -> bool:
    return _holds("vendor.github-workflows", files)


def _holds(schema: str, files: tuple[Path, ...]) -> bool:
    asked = ["--builtin-schema", schema, *map(str, files)]
    checker = import_module("check_jsonschema")  # takes seconds: only of who runs it
    ran = CliRunner().invoke(checker.main, asked)
    assert isinstance(ran.exception, SystemExit | None), ran.exception
    return ran.exit_code == 0


def strict(*files: Path) -> bool:
    version = kubernetes_validate.latest_version()
    return not any(
        kubernetes_validate.validate_file(
            str(file), version, strict=True, quiet=True, no_warn=False
        )
        for file in files
    )


def test_the_dockerfile_and_the_compose_files_are_accepted() -> None:
    assert hadolint(ROOT / "Dockerfile")
    assert compose(DEV, PROD, BACKUP)


def test_the_pipeline_of_the_deployment_guide_is_accepted_and_a_mistake_in_it_is_not(
    tmp_path: Path,
) -> None:
    (pipeline,) = fenced("yaml", (ROOT / "DEPLOY.md").read_text())
    (tmp_path / "right.yml").write_text(pipeline)
    (tmp_path / "wrong.yml").write_text(pipeline.replace("needs: check", "need: check"))
    assert workflow(tmp_path / "right.yml")
    assert not workflow(tmp_path / "wrong.yml")


def test_the_manifests_are_accepted() -> None:
    assert len(MANIFESTS) >= 8
    assert strict(*MANIFESTS)


@pytest.mark.parametrize(
    ("checker", "file", "right", "wrong"),
    [
        (hadolint, ROOT / "Dockerfile", "ENTRYPOINT [", "ENTRYPOINT picopay # ["),
        (hadolint, ROOT / "Dockerfile", "WORKDIR /build", "WORKDIR build"),
        (compose, DEV, "condition: service_healthy", "condition: healthy"),
        (compose, PROD, "limits: { cpus", "limit: { cpus"),
        (strict, KUBERNETES / "base/api.yaml", "periodSeconds", "period"),
        (strict, KUBERNETES / "base/worker.yaml", "replicas: 2", "replicas: two"),
    ],
)
def test_a_mistake_is_refused(
    tmp_path: Path, checker: Checker, file: Path, right: str, wrong: str
) -> None:
    text = file.read_text()
    assert right in text
    planted = tmp_path / file.name
    planted.write_text(text.replace(right, wrong, 1))
    assert not checker(planted)
