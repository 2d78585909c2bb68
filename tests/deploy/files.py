"""The files that say how PicoPay is deployed, read as what they mean."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
DEV, PROD = ROOT / "docker-compose.yml", ROOT / "docker-compose.prod.yml"
BACKUP: Final = ROOT / "docker-compose.backup.yml"
KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
BASE, OVERLAY = KUBERNETES / "base", KUBERNETES / "overlays" / "production"
# What they hold is whatever their kind says.
Document = dict[str, Any]


def compose(path: Path) -> Document:
    document: Document = yaml.safe_load(path.read_text())
    return document


def services(path: Path) -> dict[str, Document]:
    found: dict[str, Document] = compose(path)["services"]
    return found


def ours(path: Path) -> dict[str, Document]:
    """Those of our own image."""
    return {n: s for n, s in services(path).items() if s["image"].startswith("picopay")}


def documents(path: Path) -> list[Document]:
    return list(yaml.safe_load_all(path.read_text()))


def resources(folder: Path) -> list[Document]:
    """All that a kustomization lists of its own."""
    (kustomization,) = documents(folder / "kustomization.yaml")
    files = [folder / name for name in kustomization["resources"] if name.endswith(".yaml")]
    return [document for file in files for document in documents(file)]


def named(kind: str, name: str) -> Document:
    (found,) = [r for r in resources(BASE) if (r["kind"], r["metadata"]["name"]) == (kind, name)]
    return found


def pods() -> Iterator[tuple[str, Document]]:
    """Each workload's component, with the specification of its pods."""
    for resource in resources(BASE):
        if resource["kind"] in {"Deployment", "Job"}:
            template = resource["spec"]["template"]
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template["spec"]


def seconds(text: str) -> int:
    assert text.endswith("s"), text
    return int(text[:-1])
