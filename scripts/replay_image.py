"""Replay the Dockerfile's steps in a folder: no container engine, no root, no base image.

It shows that the steps work and that what they leave is enough to run; the base and the isolation
are this machine's. What cannot be done so is said. Example: `python scripts/replay_image.py DIR`
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Final

PROJECT: Final = Path(__file__).parents[1]
# Absolute folders of the image are folders of ours.
_ABSOLUTE: Final = re.compile(r"(?<![\w./}])/(opt|build|var/lib)\b")
_NEEDS_ROOT: Final = ("groupadd", "useradd")
_ONLY_FOR_ENGINES: Final = ("EXPOSE", "LABEL", "USER")


@dataclass
class Image:
    """What the steps leave behind: a folder, and how to run what is in it."""

    root: Path
    workdir: Path
    environment: dict[str, str] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)
    kept: list[Path] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def own(self, text: str) -> str:
        """The same text, with the image's folders below our root."""
        return _ABSOLUTE.sub(rf"{self.root}/\1", text)

    def say(self, verdict: str, step: str) -> None:
        self.said.append(f"{verdict:12} {step}")
        print(f"{verdict:12} {step[:100]}", flush=True)


def steps(dockerfile: str) -> list[tuple[str, str]]:
    """(instruction, the rest) of each, comments dropped and continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    pairs = [line.strip().partition(" ") for line in lines if line.strip()]
    return [(name, rest.strip()) for name, _, rest in pairs]


def replay(folder: Path) -> Image:
    image = Image(root=folder.resolve(), workdir=folder)
    for name, rest in steps((PROJECT / "Dockerfile").read_text()):
        _step(image, name, rest)
    for left in (image.root / "build", *(image.root / "opt").iterdir()):
        if left not in image.kept:  # it was the builder's
            shutil.rmtree(left)
    return image


def _step(image: Image, name: str, rest: str) -> None:
    if name in _ONLY_FOR_ENGINES:
        image.say("not needed", f"{name} {rest}")
        return
    {
        "FROM": _from,
        "ARG": _set,
        "ENV": _set,
        "WORKDIR": _workdir,
        "COPY": _copy,
        "RUN": _run,
        "HEALTHCHECK": _command,
        "ENTRYPOINT": _command,
        "CMD": _command,
    }[name](image, name, rest)


def _from(image: Image, _name: str, rest: str) -> None:
    """Begins with this machine's Python instead of the base's."""
    (image.root / "bin").mkdir(parents=True, exist_ok=True)
    python = image.root / "bin" / "python3"
    if not python.exists():
        python.symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    image.environment = {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    image.say("instead", f"FROM {rest}: Python {sys.version.split()[0]} of this machine")


def _set(image: Image, name: str, rest: str) -> None:
    for pair in shlex.split(rest):
        key, _, value = pair.partition("=")
        image.environment[key] = Template(image.own(value)).safe_substitute(image.environment)
    image.say("done", f"{name} {rest}")


def _workdir(image: Image, name: str, rest: str) -> None:
    image.workdir = Path(image.own(rest))
    image.workdir.mkdir(parents=True, exist_ok=True)
    image.say("done", f"{name} {rest}")


def _copy(image: Image, name: str, rest: str) -> None:
    *sources, target = rest.split()
    if sources[0].startswith("--from="):
        # Both stages share our root, so the path must be the same in both; what is not named
        # here is deleted at the end.
        assert sources[1:] == [target], rest
        image.kept.append(Path(image.own(target)))
        image.say("kept", f"{name} {rest}")
        return
    for source in sources:
        place = image.workdir / target
        if (PROJECT / source).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PROJECT / source, place, ignore=unwanted, dirs_exist_ok=True)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / source, place)
    image.say("done", f"{name} {rest}")


def _run(image: Image, name: str, rest: str) -> None:
    command = re.sub(r"--mount=\S+ ", "", rest)
    if command.startswith(_NEEDS_ROOT):
        image.say("needs root", f"{name} {rest}")
        return
    # The build reaches its package index as this machine does.
    environment = {**os.environ, **image.environment}
    for mine in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"):
        environment.pop(mine, None)
    shell = ["/bin/sh", "-ec", image.own(command)]
    subprocess.run(shell, cwd=image.workdir, env=environment, check=True, timeout=900)  # noqa: S603 - our Dockerfile
    image.say("done", f"{name} {rest}")


def _command(image: Image, name: str, rest: str) -> None:
    image.commands[name] = json.loads(rest[rest.index("[") :])
    image.say("noted", f"{name} {rest}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the image's files are put")
    made = replay(parser.parse_args().folder)
    print(json.dumps({"environment": made.environment, "commands": made.commands}, indent=2))
