"""Check the alert rules and the scrape configuration, and try every alert, with promtool.

promtool comes with Debian's package `prometheus`, and no package of ours. Where CI is set it must
be there; elsewhere its absence is told, and nothing was checked.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

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
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([promtool, *command], cwd=folder, check=False)  # noqa: S603 - ours
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
