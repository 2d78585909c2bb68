"""Logs: what libraries write comes as ours does, under a name that misleads nobody."""

import json
import subprocess
import sys

PROGRAM = """
import logging
from picopay.infra import logs
logs.configure("INFO", "json")
library = logging.getLogger("uvicorn.error")
library.debug("not shown")
library.info("started %d", 7)
library.log(25, "between")
library.warning("careful")
library.critical("fatal")
try:
    raise ValueError("broken")
except ValueError:
    library.exception("failed")
"""


def test_a_librarys_line_is_an_event_of_one_name_with_its_logger_and_message() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {(line["event"], line["logger"]) for line in lines} == {("library", "uvicorn.error")}
    assert [(line["level"], line["message"]) for line in lines] == [
        ("info", "started 7"),
        ("info", "between"),
        ("warning", "careful"),
        ("error", "fatal"),
        ("error", "failed"),
    ]
    assert "ValueError: broken" in lines[-1]["exception"]
    assert "exception" not in lines[0]
