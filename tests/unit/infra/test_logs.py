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


def test_many_lines_at_once_have_each_name_once_with_what_is_common_to_all() -> None:
    program = """
import asyncio
from picopay.infra import logs

async def told():
    logs.request_id_var.set("r-1")
    logs.log_all("charge.succeeded", [{"user_id": 1}, {"user_id": 2}])
    logs.log_all("transfer.processed", [{"request_id": "r-1", "transaction_id": "t"}])
    logs.log_all("nothing.named", [{}])
    logs.log_all("nothing.happened", [])
    await asyncio.sleep(0)

logs.configure("INFO", "json")
asyncio.run(told())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line, object_pairs_hook=list) for line in ran.stdout.splitlines()]
    events = ["charge.succeeded", "charge.succeeded", "transfer.processed", "nothing.named"]
    assert [dict(line)["event"] for line in lines] == events
    assert [dict(line).get("user_id") for line in lines] == [1, 2, None, None]
    for line in lines:
        assert len(line) == len(dict(line))
        assert {"level", "timestamp", "request_id"} <= dict(line).keys()


def test_what_a_stranger_has_sent_stays_on_its_line_of_a_terminal() -> None:
    program = """
from picopay.infra import logs
logs.configure("INFO", "console")
logs.log.warning("api_key.rejected", prefix="\\x9b31m", path="/a\\nforged \\x1b[2J")
logs.log_all("charge.replayed", [{"idempotency_key": "\\r\\nforged \\u202e"}])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = ran.stdout.removesuffix("\n").split("\n")
    assert len(lines) == 2
    assert all(sign not in ran.stdout for sign in ("\x9b", "\x1b[2J", "\r", "\u202e"))
    assert "forged" in lines[0]
    assert "forged" in lines[1]
