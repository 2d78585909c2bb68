"""Check the alert rules and the scrape configuration, and try every alert, with promtool.

promtool comes with Debian's package `prometheus`, and no package of ours. Where CI is set it must
be there; elsewhere its absence is told, and nothing was checked.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parents[1] / "deploy" / "prometheus"
MISSING: Final = "promtool is missing (Debian: apt-get install prometheus)"


def main(folder: Path) -> int:
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("CI"):
            print(f"{MISSING}: CI must have it", file=sys.stderr)
            return 1
        print(f"{MISSING}: the alerts were NOT checked", file=sys.stderr)
        return 0
    with TemporaryDirectory() as temporary:
        kubernetes = without_discovery(folder / "prometheus.kubernetes.yml", Path(temporary))
        for command in (
            ["check", "config", "prometheus.yml", str(kubernetes)],
            ["test", "rules", "alerts_test.yml"],
        ):
            done = subprocess.run([promtool, *command], cwd=folder, check=False)  # noqa: S603 - ours
            if done.returncode:
                return done.returncode
    return 0


def without_discovery(file: Path, folder: Path) -> Path:
    """Debian's promtool is built without Kubernetes: the rest of the file is checked."""
    configuration: dict[str, Any] = yaml.safe_load(file.read_text())
    configuration["rule_files"] = []  # they are beside the other file, and checked with it
    for job in configuration["scrape_configs"]:
        del job["kubernetes_sd_configs"]
    copy = folder / file.name
    copy.write_text(json.dumps(configuration))  # which is YAML
    return copy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=FOLDER, help="of other files than ours"
    )
    sys.exit(main(parser.parse_args().folder))
